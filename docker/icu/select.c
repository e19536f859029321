/* Writes ICU's data package anew with the entries that do not speak of languages, and with those of English:
 *
 *     clang -DSYMBOL=icudt76_dat select.c icu_packaged_data.o -o select && ./select > package
 *
 * The layout is that of ICU's common data format "CmnD", version 1: a header that begins with its own length, then a
 * table of contents (a count, then for each entry the offsets of its name and of its data from the table), the names,
 * and the data at multiples of 16. Entries are sorted by name. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const uint8_t SYMBOL[];

struct Entry {
    uint32_t name;
    uint32_t data;
};

static bool is_one_of(const char *name, const char *const *names) {
    for (; *names; names++) {
        if (!strcmp(name, *names)) return true;
    }
    return false;
}

static bool ends_with(const char *name, const char *ending) {
    size_t length = strlen(name), tail = strlen(ending);
    return length >= tail && !strcmp(name + length - tail, ending);
}

/* Two or three small letters, perhaps with more after an underscore. */
static bool is_locale(const char *name) {
    size_t letters = strspn(name, "abcdefghijklmnopqrstuvwxyz");
    return (letters == 2 || letters == 3) && (name[letters] == '_' || name[letters] == '.');
}

static const char *const kept_locales[] = {"en.res", "en_001.res", "en_US.res", "en_US_POSIX.res", NULL};

/* Dictionaries of scripts without spaces and rules between alphabets are large, and not English. */
static bool is_kept(const char *path) {
    const char *slash = strchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (!strncmp(path, "translit/", 9) || ends_with(name, ".dict") || ends_with(name, ".cnv")) return false;
    if (!strcmp(name, "unames.icu")) return false;
    return !ends_with(name, ".res") || !is_locale(name) || is_one_of(name, kept_locales);
}

static uint32_t aligned(uint32_t offset) { return (offset + 15) & ~15u; }

static void put(const void *bytes, size_t count) {
    if (fwrite(bytes, 1, count, stdout) != count) exit(1);
}

static void pad(uint32_t from, uint32_t to) {
    for (; from < to; from++) putchar(0);
}

int main(void) {
    uint16_t headerSize;
    memcpy(&headerSize, SYMBOL, sizeof headerSize);
    const uint8_t *table = SYMBOL + headerSize;
    uint32_t count;
    memcpy(&count, table, sizeof count);
    const struct Entry *entries = (const struct Entry *)(table + sizeof count);

    /* The end of the last entry is not written down, so it cannot be copied. */
    uint32_t *kept = calloc(count, sizeof *kept), keptCount = 0, nameBytes = 0;
    for (uint32_t index = 0; kept && index + 1 < count; index++) {
        const char *name = (const char *)table + entries[index].name;
        const char *slash = strchr(name, '/');
        if (!slash || !is_kept(slash + 1)) continue;
        kept[keptCount++] = index;
        nameBytes += strlen(name) + 1;
    }
    if (keptCount == 0) {
        fputs("no entry is kept: this is not a data package of the known layout\n", stderr);
        return 1;
    }
    uint32_t nameOffset = sizeof count + keptCount * sizeof(struct Entry);
    uint32_t namesEnd = nameOffset + nameBytes;
    uint32_t dataOffset = aligned(namesEnd);
    put(SYMBOL, headerSize);
    put(&keptCount, sizeof keptCount);
    for (uint32_t place = 0; place < keptCount; place++) {
        const struct Entry *entry = &entries[kept[place]];
        struct Entry moved = {nameOffset, dataOffset};
        put(&moved, sizeof moved);
        nameOffset += strlen((const char *)table + entry->name) + 1;
        dataOffset = aligned(dataOffset + entry[1].data - entry->data);
    }
    for (uint32_t place = 0; place < keptCount; place++) {
        const char *name = (const char *)table + entries[kept[place]].name;
        put(name, strlen(name) + 1);
    }
    pad(namesEnd, aligned(namesEnd));
    for (uint32_t place = 0; place < keptCount; place++) {
        const struct Entry *entry = &entries[kept[place]];
        uint32_t size = entry[1].data - entry->data;
        put(table + entry->data, size);
        pad(size, aligned(size));
    }
    fprintf(stderr, "ICU data: %u of %u entries, %u KiB\n", keptCount, count, dataOffset >> 10);
    return 0;
}
