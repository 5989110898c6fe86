/* Reads tests/fixtures/images/expected.txt; make_images.py there says what its lines mean. */
#ifndef QVL_TESTS_UNIT_IMAGE_FIXTURES_H
#define QVL_TESTS_UNIT_IMAGE_FIXTURES_H

#include <stdio.h>
#include <string.h>

#define FIXTURE_DIRECTORY QVL_TEST_FIXTURES "/images/"

enum { FIXTURE_WORDS = 8, FIXTURE_LINE = 1024 };

typedef struct fixture {
    char path[FIXTURE_LINE];      /* of the file it is about */
    const char *name;             /* its last part */
    char line[FIXTURE_LINE];      /* after the kind and the name */
    char word[FIXTURE_WORDS][80]; /* the same, word by word */
} fixture;

/* Calls check for every line of this kind, and returns how many there were, -1 without the file. */
static inline int fixtures_each(const char *kind, void (*check)(const fixture *f))
{
    FILE *file = fopen(FIXTURE_DIRECTORY "expected.txt", "r");
    char line[FIXTURE_LINE];
    int n = 0;
    if (!file)
        return -1;
    while (fgets(line, sizeof line, file)) {
        char found[16], name[80];
        int used = 0;
        fixture f = {.line = ""};
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%15s %79s %n", found, name, &used) < 2 || strcmp(found, kind) != 0)
            continue;
        snprintf(f.path, sizeof f.path, "%s%s", FIXTURE_DIRECTORY, name);
        f.name = f.path + strlen(FIXTURE_DIRECTORY);
        snprintf(f.line, sizeof f.line, "%s", line + used);
        sscanf(f.line, "%79s %79s %79s %79s %79s %79s %79s %79s", f.word[0], f.word[1], f.word[2],
               f.word[3], f.word[4], f.word[5], f.word[6], f.word[7]);
        check(&f);
        n++;
    }
    fclose(file);
    return n;
}

#endif
