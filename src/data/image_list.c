#include "src/data/image_list.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

void qvl_image_list_fini(qvl_image_list *list)
{
    free(list->images);
    free(list->table);
    qvl_text_fini(&list->paths);
    qvl_text_fini(&list->faults);
    *list = (qvl_image_list){0};
}

/* FNV-1a */
static uint64_t hash_of(const char *path)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *path; path++)
        hash = (hash ^ (unsigned char)*path) * 0x100000001b3u;
    return hash;
}

static size_t place_of(const qvl_image_list *list, const char *path)
{
    size_t at = (size_t)hash_of(path) & (list->table_size - 1);
    while (list->table[at]) {
        const qvl_listed_image *image = &list->images[list->table[at] - 1];
        if (strcmp(list->paths.data + image->path, path) == 0)
            break;
        at = (at + 1) & (list->table_size - 1);
    }
    return at;
}

static qvl_status grow_table(qvl_image_list *list, qvl_err *err)
{
    const size_t size = list->table_size ? 2 * list->table_size : 256;
    uint32_t *table = NULL;
    const qvl_status rc = qvl_alloc(&table, size, sizeof *table, "image list", err);
    if (rc != QVL_OK)
        return rc;
    free(list->table);
    list->table = table;
    list->table_size = size;
    for (size_t i = 0; i < list->count; i++)
        table[place_of(list, list->paths.data + list->images[i].path)] = (uint32_t)i + 1;
    return QVL_OK;
}

qvl_status qvl_image_list_add(qvl_image_list *list, int32_t *out, const char *path,
                              const int32_t grid[3], qvl_err *err)
{
    qvl_status rc = QVL_OK;
    if (2 * (list->count + 1) > list->table_size)
        QVL_TRY(grow_table(list, err));
    const size_t at = place_of(list, path);
    if (list->table[at] == 0) {
        if (list->count >= INT32_MAX)
            return qvl_fail(err, QVL_EDATA, "more than %d images", INT32_MAX);
        QVL_TRY(qvl_reserve(&list->images, &list->capacity, list->count + 1, sizeof *list->images,
                            "image list", err));
        qvl_listed_image *image = &list->images[list->count++];
        *image = (qvl_listed_image){.path = list->paths.len};
        memcpy(image->grid, grid, sizeof image->grid);
        QVL_TRY(qvl_text_add(&list->paths, path, strlen(path) + 1, err));
        list->table[at] = (uint32_t)list->count;
    }
    *out = (int32_t)list->table[at] - 1;
out:
    return rc;
}

qvl_status qvl_image_list_mark(qvl_image_list *list, size_t index, qvl_status status,
                               const char *text, qvl_err *err)
{
    const char code = (char)status;
    const size_t at = list->faults.len;
    qvl_status rc = QVL_OK;
    if (at >= UINT32_MAX - 1)
        return QVL_OK; /* 4 GiB of them: those before say enough */
    QVL_TRY(qvl_text_add(&list->faults, &code, 1, err));
    QVL_TRY(qvl_text_add(&list->faults, text, strlen(text) + 1, err));
    list->images[index].fault = (uint32_t)at + 1;
out:
    return rc;
}

qvl_status qvl_image_list_fault(const qvl_image_list *list, const char *path, const char **out_text)
{
    if (list->faults.len == 0)
        return QVL_OK;
    const uint32_t number = list->table[place_of(list, path)];
    const uint32_t fault = number ? list->images[number - 1].fault : 0;
    if (!fault)
        return QVL_OK;
    *out_text = list->faults.data + fault;
    return (qvl_status)(unsigned char)list->faults.data[fault - 1];
}
