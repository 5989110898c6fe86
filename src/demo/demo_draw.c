#include "src/demo/demo_draw.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cairo.h>
#include <jpeglib.h>

#include "src/base/memory.h"
#include "src/demo/demo_rng.h"

#define PI 3.14159265358979323846

enum { JPEG_QUALITY = 92 };

/* In the order of demo_text.c's names. */
static const uint32_t COLOURS[QVL_DEMO_N_COLOURS] = {0xd62828, 0x2a9134, 0x1d5fd0, 0xf2c80f,
                                                     0xf07f13, 0x7b2fb5, 0x161616};
static const uint32_t GROUNDS[QVL_DEMO_N_GROUNDS] = {0xffffff, 0xbdbdbd, 0xf7c1d3, 0xe9dcc0};

static void set_colour(cairo_t *cairo, uint32_t rgb)
{
    cairo_set_source_rgb(cairo, (rgb >> 16 & 255) / 255.0, (rgb >> 8 & 255) / 255.0,
                         (rgb & 255) / 255.0);
}

/* A closed line through n corners around (x, y), the first one straight up; every other corner at
 * inner instead of radius. */
static void trace_corners(cairo_t *cairo, double x, double y, double radius, double inner, int n)
{
    for (int i = 0; i < n; i++) {
        const double r = i % 2 ? inner : radius, angle = 2 * PI * i / n - PI / 2;
        cairo_line_to(cairo, x + r * cos(angle), y + r * sin(angle));
    }
    cairo_close_path(cairo);
}

/* Every shape lies within radius of (x, y). */
static void draw_shape(cairo_t *cairo, int shape, double x, double y, double radius)
{
    const double half = radius * 0.75, bar = radius * 0.3;
    switch (shape) {
    case 0:
        cairo_arc(cairo, x, y, radius * 0.9, 0, 2 * PI);
        break;
    case 1:
        cairo_rectangle(cairo, x - half, y - half, 2 * half, 2 * half);
        break;
    case 2:
        trace_corners(cairo, x, y, radius, radius, 3);
        break;
    case 3:
        trace_corners(cairo, x, y, radius, radius * 0.4, 10);
        break;
    case 4:
        cairo_rectangle(cairo, x - radius * 0.9, y - bar, 1.8 * radius, 2 * bar);
        cairo_rectangle(cairo, x - bar, y - radius * 0.9, 2 * bar, 1.8 * radius);
        break;
    default:
        trace_corners(cairo, x, y, radius, radius * 0.7, 4);
    }
    cairo_fill(cairo);
}

/* The picture is cut into at least count cells that are about square; each shape has its own cell,
 * and wanders and shrinks in it. */
static void draw_scene(cairo_t *cairo, const qvl_scene *scene, int width, int height,
                       uint64_t layout)
{
    int columns = (int)ceil(sqrt((double)scene->count * width / height));
    columns = columns > scene->count ? scene->count : columns;
    const int rows = (scene->count + columns - 1) / columns;
    const double cell_width = (double)width / columns, cell_height = (double)height / rows;
    const double most = 0.46 * fmin(cell_width, cell_height);
    set_colour(cairo, GROUNDS[scene->ground]);
    cairo_paint(cairo);
    set_colour(cairo, COLOURS[scene->colour]);
    int left_over = columns * rows - scene->count, drawn = 0;
    for (int cell = 0; cell < columns * rows && drawn < scene->count; cell++) {
        if (left_over && qvl_demo_draw(&layout, columns * rows - cell) < left_over) {
            left_over--;
            continue;
        }
        const double radius = most * (0.6 + 0.01 * qvl_demo_draw(&layout, 41));
        const double room_x = cell_width - 2 * radius, room_y = cell_height - 2 * radius;
        const double x =
            cell % columns * cell_width + radius + room_x * 0.01 * qvl_demo_draw(&layout, 101);
        const double y =
            cell / columns * cell_height + radius + room_y * 0.01 * qvl_demo_draw(&layout, 101);
        draw_shape(cairo, scene->shape, x, y, radius);
        drawn++;
    }
}

static cairo_status_t add_png_bytes(void *closure, const unsigned char *bytes, unsigned n_bytes)
{
    return qvl_text_add(closure, (const char *)bytes, n_bytes, NULL) == QVL_OK
               ? CAIRO_STATUS_SUCCESS
               : CAIRO_STATUS_NO_MEMORY;
}

typedef struct jpeg_failure {
    struct jpeg_error_mgr manager; /* first: libjpeg hands back a pointer to it */
    jmp_buf back;
    char text[JMSG_LENGTH_MAX];
} jpeg_failure;

/* libjpeg's own handler would end the program. */
static void fail_jpeg(j_common_ptr jpeg)
{
    jpeg_failure *failure = (jpeg_failure *)(void *)jpeg->err;
    failure->manager.format_message(jpeg, failure->text);
    longjmp(failure->back, 1);
}

static void compress_rows(struct jpeg_compress_struct *jpeg, const unsigned char *pixels,
                          int stride, unsigned char *row)
{
    while (jpeg->next_scanline < jpeg->image_height) {
        const unsigned char *line = pixels + (size_t)jpeg->next_scanline * (size_t)stride;
        for (unsigned i = 0; i < jpeg->image_width; i++) {
            uint32_t rgb;
            memcpy(&rgb, line + 4 * i, 4); /* cairo: 0x00RRGGBB in the machine's byte order */
            row[3 * i] = (unsigned char)(rgb >> 16);
            row[3 * i + 1] = (unsigned char)(rgb >> 8);
            row[3 * i + 2] = (unsigned char)rgb;
        }
        jpeg_write_scanlines(jpeg, &row, 1);
    }
}

typedef struct jpeg_job {
    struct jpeg_compress_struct jpeg;
    jpeg_failure failure;
    unsigned char *bytes;
    unsigned long n_bytes;
} jpeg_job;

/* False when libjpeg gave up; the job, being the caller's, keeps what was allocated until then. */
static bool run_jpeg(jpeg_job *job, cairo_surface_t *surface, unsigned char *row)
{
    if (setjmp(job->failure.back) != 0)
        return false;
    jpeg_create_compress(&job->jpeg);
    jpeg_mem_dest(&job->jpeg, &job->bytes, &job->n_bytes);
    job->jpeg.image_width = (JDIMENSION)cairo_image_surface_get_width(surface);
    job->jpeg.image_height = (JDIMENSION)cairo_image_surface_get_height(surface);
    job->jpeg.input_components = 3;
    job->jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&job->jpeg);
    jpeg_set_quality(&job->jpeg, JPEG_QUALITY, TRUE);
    jpeg_start_compress(&job->jpeg, TRUE);
    compress_rows(&job->jpeg, cairo_image_surface_get_data(surface),
                  cairo_image_surface_get_stride(surface), row);
    jpeg_finish_compress(&job->jpeg);
    return true;
}

static qvl_status encode_jpeg(qvl_text *out, cairo_surface_t *surface, qvl_err *err)
{
    jpeg_job job = {0};
    unsigned char *row = NULL;
    qvl_status rc =
        qvl_alloc(&row, (size_t)cairo_image_surface_get_width(surface), 3, "a row of pixels", err);
    if (rc != QVL_OK)
        return rc;
    job.jpeg.err = jpeg_std_error(&job.failure.manager);
    job.failure.manager.error_exit = fail_jpeg;
    rc = run_jpeg(&job, surface, row)
             ? qvl_text_add(out, (const char *)job.bytes, job.n_bytes, err)
             : qvl_fail(err, QVL_EINTERNAL, "encoding a JPEG: %s", job.failure.text);
    jpeg_destroy_compress(&job.jpeg);
    free(job.bytes);
    free(row);
    return rc;
}

qvl_status qvl_scene_draw(qvl_text *out, const qvl_scene *scene, int width, int height,
                          bool is_jpeg, uint64_t layout, qvl_err *err)
{
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
    cairo_t *cairo = cairo_create(surface);
    qvl_status rc = QVL_OK;
    qvl_text_clear(out);
    draw_scene(cairo, scene, width, height, layout);
    cairo_status_t status = cairo_status(cairo);
    cairo_surface_flush(surface);
    if (status == CAIRO_STATUS_SUCCESS && !is_jpeg)
        status = cairo_surface_write_to_png_stream(surface, add_png_bytes, out);
    if (status != CAIRO_STATUS_SUCCESS)
        rc = qvl_fail(err, QVL_EINTERNAL, "drawing a picture: %s", cairo_status_to_string(status));
    else if (is_jpeg)
        rc = encode_jpeg(out, surface, err);
    cairo_destroy(cairo);
    cairo_surface_destroy(surface);
    return rc;
}
