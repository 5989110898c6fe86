/* Images are numbered when they are first seen, however many there are. */
#include "src/data/image_list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void an_image_keeps_its_number(void **state)
{
    (void)state;
    static const char *const PATHS[] = {"a.jpg", "b.jpg", "a.jpg", "", "b.jpg", "c", "", "a.jp"};
    static const int32_t NUMBERS[] = {0, 1, 0, 2, 1, 3, 2, 4};
    qvl_image_list list = {0};
    for (int i = 0; i < 8; i++) {
        const int32_t grid[3] = {1, 4 + i, 6};
        int32_t number = -1;
        assert_int_equal(qvl_image_list_add(&list, &number, PATHS[i], grid, NULL), 0);
        assert_int_equal(number, NUMBERS[i]);
    }
    assert_int_equal(list.count, 5);
    assert_string_equal(list.paths.data + list.images[1].path, "b.jpg");
    assert_int_equal(list.images[1].grid[1], 5);
    assert_int_equal(list.images[0].grid[1], 4); /* that of the first time */
    qvl_image_list_fini(&list);
    assert_int_equal(list.count, 0);
    qvl_image_list_fini(&list);
}

static void many_images(void **state)
{
    (void)state;
    enum { N = 50000 };
    const int32_t grid[3] = {1, 2, 2};
    qvl_image_list list = {0};
    char path[64];
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < N; i++) {
            int32_t number = -1;
            snprintf(path, sizeof path, "directory/%d.png", i);
            assert_int_equal(qvl_image_list_add(&list, &number, path, grid, NULL), 0);
            assert_int_equal(number, i);
        }
    assert_int_equal(list.count, N);
    for (int i = 0; i < N; i += 777) {
        snprintf(path, sizeof path, "directory/%d.png", i);
        assert_string_equal(list.paths.data + list.images[i].path, path);
    }
    qvl_image_list_fini(&list);
}

static void faults_are_found_by_path(void **state)
{
    (void)state;
    const int32_t grid[3] = {1, 2, 2};
    static const char *const PATHS[] = {"a.png", "b.png", "c.png"};
    qvl_image_list list = {0};
    const char *text = NULL;
    int32_t number = 0;
    assert_int_equal(qvl_image_list_fault(&list, "a.png", &text), QVL_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(qvl_image_list_add(&list, &number, PATHS[i], grid, NULL), QVL_OK);
    assert_int_equal(qvl_image_list_mark(&list, 2, QVL_EDATA, "c.png: broken", NULL), QVL_OK);
    assert_int_equal(qvl_image_list_mark(&list, 0, QVL_EMISSING, "a.png: gone", NULL), QVL_OK);
    assert_int_equal(qvl_image_list_fault(&list, "a.png", &text), QVL_EMISSING);
    assert_string_equal(text, "a.png: gone");
    assert_int_equal(qvl_image_list_fault(&list, "b.png", &text), QVL_OK);
    assert_int_equal(qvl_image_list_fault(&list, "c.png", &text), QVL_EDATA);
    assert_string_equal(text, "c.png: broken");
    assert_int_equal(qvl_image_list_fault(&list, "d.png", &text), QVL_OK);
    qvl_image_list_fini(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_keeps_its_number),
        cmocka_unit_test(many_images),
        cmocka_unit_test(faults_are_found_by_path),
    };
    return cmocka_run_group_tests_name("image_list", tests, NULL, NULL);
}
