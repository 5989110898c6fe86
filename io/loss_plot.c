#include "io/loss_plot.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cairo.h>

#include "io/plot_axis.h"
#include "src/base/files.h"
#include "src/base/memory.h"
#include "src/base/text.h"

/* matplotlib's default figure, 6.4 x 4.8 inches at 100 dots per inch, with its default margins.
 *
 *     0     80                    576  640
 *   0 +-----------------------------+      title
 *  58 |     +--------------------+  |
 *     |  y  |          [legend]  |  |
 * 427 |     +--------------------+  |
 * 480 +-----------------------------+      "step"
 */
enum { WIDTH_PX = 640, HEIGHT_PX = 480 };
#define BOX_LEFT   80.0
#define BOX_RIGHT  576.0
#define BOX_TOP    57.6
#define BOX_BOTTOM 427.2

#define POINT_PX       (100.0 / 72.0)
#define TEXT_PX        (10.0 * POINT_PX)
#define TITLE_PX       (12.0 * POINT_PX)
#define TICK_LENGTH_PX (3.5 * POINT_PX)
#define MAX_MAGNITUDE  1e300

/* Shares of the text size in DejaVu Sans: top of "l", top of a digit, bottom of "p". */
#define ASCENT  0.76
#define DIGIT   0.73
#define DESCENT 0.24

void qvl_smooth(double *out, const double *values, size_t n)
{
    const double weight = 1.8 * (1.0 / (1.0 + exp(-0.05 * (double)n)) - 0.5);
    double last = n ? values[0] : 0.0;
    for (size_t i = 0; i < n; i++) {
        last = last * weight + (1.0 - weight) * values[i];
        out[i] = last;
    }
}

typedef struct canvas {
    cairo_t *cairo;
    qvl_plot_axis x, y;
    bool has_font;
    size_t *which; /* scratch of the curves: an index for each point */
} canvas;

static double x_px(const canvas *c, double step)
{
    return BOX_LEFT + (BOX_RIGHT - BOX_LEFT) * qvl_plot_axis_at(&c->x, step);
}

static double y_px(const canvas *c, double value)
{
    return BOX_BOTTOM - (BOX_BOTTOM - BOX_TOP) * qvl_plot_axis_at(&c->y, value);
}

/* A thin line between pixels is grey and two wide: move it onto one. */
static double snap(double px)
{
    return floor(px) + 0.5;
}

static void choose_font(cairo_t *cairo)
{
    cairo_font_options_t *options = cairo_font_options_create();
    cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
    cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_SLIGHT);
    cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
    cairo_set_font_options(cairo, options);
    cairo_font_options_destroy(options);
    cairo_select_font_face(cairo, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cairo, TEXT_PX);
}

/* Whether text can be drawn here. A failure would put the drawing context out of use for good, so
 * it is tried on one that is thrown away. */
static bool find_font(void)
{
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, 32, 32);
    cairo_t *cairo = cairo_create(surface);
    choose_font(cairo);
    cairo_move_to(cairo, 2, 20);
    cairo_show_text(cairo, "0");
    const bool works = cairo_status(cairo) == CAIRO_STATUS_SUCCESS;
    cairo_destroy(cairo);
    cairo_surface_destroy(surface);
    return works;
}

static double text_width(const canvas *c, const char *text)
{
    cairo_text_extents_t extents = {0};
    if (c->has_font)
        cairo_text_extents(c->cairo, text, &extents);
    return extents.x_advance;
}

/* Text on the baseline y, of which the share align (0 left, 0.5 centre, 1 right) lies left of x. */
static void draw_text(const canvas *c, double x, double y, double align, const char *text)
{
    if (!c->has_font)
        return;
    cairo_move_to(c->cairo, x - align * text_width(c, text), y);
    cairo_show_text(c->cairo, text);
}

static void draw_ticks(const canvas *c)
{
    char label[QVL_AXIS_LABEL_BYTES], exponent[16];
    cairo_set_line_width(c->cairo, 0.8 * POINT_PX);
    for (int i = 0; i < c->x.n_ticks; i++) {
        const double x = x_px(c, c->x.ticks[i]);
        cairo_move_to(c->cairo, snap(x), snap(BOX_BOTTOM));
        cairo_rel_line_to(c->cairo, 0, TICK_LENGTH_PX);
        draw_text(c, x, BOX_BOTTOM + 2 * TICK_LENGTH_PX + ASCENT * TEXT_PX, 0.5,
                  qvl_plot_axis_label(label, &c->x, i));
    }
    for (int i = 0; i < c->y.n_ticks; i++) {
        const double y = y_px(c, c->y.ticks[i]);
        cairo_move_to(c->cairo, snap(BOX_LEFT), snap(y));
        cairo_rel_line_to(c->cairo, -TICK_LENGTH_PX, 0);
        draw_text(c, BOX_LEFT - 2 * TICK_LENGTH_PX, y + DIGIT / 2 * TEXT_PX, 1.0,
                  qvl_plot_axis_label(label, &c->y, i));
    }
    cairo_stroke(c->cairo);
    if (c->y.exponent) {
        snprintf(exponent, sizeof exponent, "1e%d", c->y.exponent);
        draw_text(c, BOX_LEFT, BOX_TOP - 3 * POINT_PX, 0.0, exponent);
    }
    if (c->x.exponent) {
        snprintf(exponent, sizeof exponent, "1e%d", c->x.exponent);
        draw_text(c, BOX_RIGHT, HEIGHT_PX - 12.0, 1.0, exponent);
    }
}

/* The title shrinks when it is wider than the picture: paths are long. */
static void draw_titles(const canvas *c, const char *title, const char *y_label)
{
    const double baseline = BOX_BOTTOM + 2 * TICK_LENGTH_PX + (ASCENT + DESCENT) * TEXT_PX +
                            4 * POINT_PX + ASCENT * TEXT_PX;
    char label[QVL_AXIS_LABEL_BYTES];
    double widest = 0.0;
    draw_text(c, (BOX_LEFT + BOX_RIGHT) / 2, baseline, 0.5, "step");
    for (int i = 0; i < c->y.n_ticks; i++)
        widest = fmax(widest, text_width(c, qvl_plot_axis_label(label, &c->y, i)));
    cairo_save(c->cairo);
    const double x = BOX_LEFT - 2 * TICK_LENGTH_PX - widest - 4 * POINT_PX - DESCENT * TEXT_PX;
    cairo_translate(c->cairo, fmax(x, ASCENT * TEXT_PX + 2.0), (BOX_TOP + BOX_BOTTOM) / 2);
    cairo_rotate(c->cairo, -1.57079632679489662);
    draw_text(c, 0, 0, 0.5, y_label);
    cairo_restore(c->cairo);

    cairo_set_font_size(c->cairo, TITLE_PX);
    const double width = text_width(c, title), room = 2 * (WIDTH_PX - 328.0) - 8.0;
    if (width > room)
        cairo_set_font_size(c->cairo, fmax(TITLE_PX * room / width, 5.0));
    draw_text(c, (BOX_LEFT + BOX_RIGHT) / 2, BOX_TOP - 6 * POINT_PX, 0.5, title);
    cairo_set_font_size(c->cairo, TEXT_PX);
}

static void set_curve_colour(cairo_t *cairo, double alpha)
{
    cairo_set_source_rgba(cairo, 0x1f / 255.0, 0x77 / 255.0, 0xb4 / 255.0, alpha); /* #1f77b4 */
    cairo_set_line_width(cairo, 1.5 * POINT_PX);
}

/* The points that change the picture: of those in one column of pixels the first, the lowest, the
 * highest and the last, in order. What cairo needs for a line that crosses itself grows with the
 * square of its points, and a long run logs more than there are columns. Their indices go to
 * which [n]; returns how many. */
static size_t thin(size_t *which, const canvas *c, const double *steps, const double *values,
                   size_t n)
{
    size_t kept = 0;
    for (size_t first = 0, end; first < n; first = end) {
        const double column = floor(x_px(c, steps[first]));
        size_t low = first, high = first;
        for (end = first + 1; end < n && floor(x_px(c, steps[end])) == column; end++) {
            low = values[end] < values[low] ? end : low;
            high = values[end] > values[high] ? end : high;
        }
        const size_t order[4] = {first, low < high ? low : high, low < high ? high : low, end - 1};
        for (int i = 0; i < 4; i++)
            if (i == 0 || order[i] != order[i - 1])
                which[kept++] = order[i];
    }
    return kept;
}

static void draw_curve(const canvas *c, const double *steps, const double *values, size_t n,
                       double alpha)
{
    cairo_t *cairo = c->cairo;
    set_curve_colour(cairo, alpha);
    if (n == 1) {
        cairo_arc(cairo, x_px(c, steps[0]), y_px(c, values[0]), 3 * POINT_PX, 0,
                  6.2831853071795865);
        cairo_fill(cairo);
        return;
    }
    cairo_set_line_join(cairo, CAIRO_LINE_JOIN_ROUND);
    cairo_set_line_cap(cairo, CAIRO_LINE_CAP_SQUARE);
    const size_t kept = thin(c->which, c, steps, values, n);
    for (size_t i = 0; i < kept; i++)
        cairo_line_to(cairo, x_px(c, steps[c->which[i]]), y_px(c, values[c->which[i]]));
    cairo_stroke(cairo);
    cairo_set_line_cap(cairo, CAIRO_LINE_CAP_BUTT);
}

static void trace_rounded_box(cairo_t *cairo, double x, double y, double width, double height,
                              double radius)
{
    const double quarter = 1.57079632679489662;
    cairo_new_sub_path(cairo);
    cairo_arc(cairo, x + width - radius, y + radius, radius, -quarter, 0);
    cairo_arc(cairo, x + width - radius, y + height - radius, radius, 0, quarter);
    cairo_arc(cairo, x + radius, y + height - radius, radius, quarter, 2 * quarter);
    cairo_arc(cairo, x + radius, y + radius, radius, 2 * quarter, 3 * quarter);
    cairo_close_path(cairo);
}

/* Lengths are shares of the text size: matplotlib's legend defaults. */
static void draw_legend(const canvas *c)
{
    static const char *const NAMES[2] = {"original", "smoothed"};
    static const double ALPHAS[2] = {0.4, 1.0};
    const double em = TEXT_PX, row = (ASCENT + DESCENT) * em, pad = 0.4 * em, gap = 0.5 * em;
    const double names = c->has_font ? fmax(text_width(c, NAMES[0]), text_width(c, NAMES[1])) : 0.0;
    const double width = pad + 2.0 * em + 0.8 * em + names + pad, height = 2 * (pad + row) + gap;
    const double left = BOX_RIGHT - gap - width, top = BOX_TOP + gap;
    trace_rounded_box(c->cairo, left, top, width, height, 0.2 * em);
    cairo_set_source_rgba(c->cairo, 1, 1, 1, 0.8);
    cairo_fill_preserve(c->cairo);
    cairo_set_source_rgba(c->cairo, 0.8, 0.8, 0.8, 0.8);
    cairo_set_line_width(c->cairo, 1.0 * POINT_PX);
    cairo_stroke(c->cairo);
    for (int i = 0; i < 2; i++) {
        const double baseline = top + pad + ASCENT * em + i * (row + gap);
        set_curve_colour(c->cairo, ALPHAS[i]);
        cairo_move_to(c->cairo, left + pad, baseline - 0.35 * em);
        cairo_rel_line_to(c->cairo, 2.0 * em, 0);
        cairo_stroke(c->cairo);
        cairo_set_source_rgb(c->cairo, 0, 0, 0);
        draw_text(c, left + pad + 2.8 * em, baseline, 0.0, NAMES[i]);
    }
}

static void draw_all(const canvas *c, const double *steps, const double *values,
                     const double *smoothed, size_t n)
{
    cairo_save(c->cairo);
    cairo_rectangle(c->cairo, BOX_LEFT, BOX_TOP, BOX_RIGHT - BOX_LEFT, BOX_BOTTOM - BOX_TOP);
    cairo_clip(c->cairo);
    draw_curve(c, steps, values, n, 0.4);
    draw_curve(c, steps, smoothed, n, 1.0);
    cairo_restore(c->cairo);
    cairo_set_source_rgb(c->cairo, 0, 0, 0);
    draw_ticks(c);
    cairo_set_line_width(c->cairo, 0.8 * POINT_PX);
    cairo_rectangle(c->cairo, snap(BOX_LEFT), snap(BOX_TOP), snap(BOX_RIGHT) - snap(BOX_LEFT),
                    snap(BOX_BOTTOM) - snap(BOX_TOP));
    cairo_stroke(c->cairo);
    draw_legend(c);
}

static cairo_status_t add_png_bytes(void *closure, const unsigned char *bytes, unsigned n_bytes)
{
    return qvl_text_add(closure, (const char *)bytes, n_bytes, NULL) == QVL_OK
               ? CAIRO_STATUS_SUCCESS
               : CAIRO_STATUS_NO_MEMORY;
}

/* Copies to where one may write, bad bytes of UTF-8 as '?': cairo stops at them. */
static qvl_status printable(char **out, const char *text, qvl_err *err)
{
    size_t bad = 0;
    const qvl_status rc = qvl_copy_text(out, text, err);
    while (rc == QVL_OK && !qvl_utf8_is_valid(*out, strlen(*out), &bad))
        (*out)[bad] = '?';
    return rc;
}

static double limited(double value)
{
    return value > MAX_MAGNITUDE ? MAX_MAGNITUDE : value < -MAX_MAGNITUDE ? -MAX_MAGNITUDE : value;
}

/* points [3 n]: steps, values, smoothed values of the points that are finite; returns how many. */
static size_t gather(double *points, const double *steps, const double *values, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(steps[i]) || !isfinite(values[i]))
            continue;
        points[kept] = limited(steps[i]);
        points[n + kept] = limited(values[i]);
        kept++;
    }
    qvl_smooth(points + 2 * n, points + n, kept);
    return kept;
}

qvl_status qvl_loss_plot(const char *path, const char *title, const char *y_label,
                         const double *steps, const double *values, size_t n, qvl_err *err)
{
    canvas c = {0};
    cairo_surface_t *surface = NULL;
    double *points = NULL;
    char *title_text = NULL, *label_text = NULL;
    qvl_text png = {0};
    cairo_status_t status;
    qvl_status rc = qvl_alloc(&points, n, 3 * sizeof *points, "points of the loss plot", err);
    if (rc != QVL_OK)
        return rc;
    const size_t kept = gather(points, steps, values, n);
    if (kept == 0)
        goto out;
    QVL_TRY(qvl_alloc(&c.which, kept, sizeof *c.which, "points of the loss plot", err));
    QVL_TRY(printable(&title_text, title, err));
    QVL_TRY(printable(&label_text, y_label, err));
    qvl_plot_axis_init(&c.x, points, kept);
    qvl_plot_axis_init(&c.y, points + n, kept);
    surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, WIDTH_PX, HEIGHT_PX);
    c.cairo = cairo_create(surface);
    c.has_font = find_font();
    choose_font(c.cairo);
    cairo_set_source_rgb(c.cairo, 1, 1, 1);
    cairo_paint(c.cairo);
    draw_all(&c, points, points + n, points + 2 * n, kept);
    cairo_set_source_rgb(c.cairo, 0, 0, 0);
    draw_titles(&c, title_text, label_text);
    status = cairo_status(c.cairo);
    if (status == CAIRO_STATUS_SUCCESS)
        status = cairo_surface_write_to_png_stream(surface, add_png_bytes, &png);
    if (status != CAIRO_STATUS_SUCCESS) {
        rc = qvl_fail(err, QVL_EINTERNAL, "drawing %s: %s", path, cairo_status_to_string(status));
        goto out;
    }
    QVL_TRY(qvl_file_replace(path, png.data, png.len, err));
out:
    if (c.cairo)
        cairo_destroy(c.cairo);
    if (surface)
        cairo_surface_destroy(surface);
    qvl_text_fini(&png);
    free(title_text);
    free(label_text);
    free(c.which);
    free(points);
    return rc;
}
