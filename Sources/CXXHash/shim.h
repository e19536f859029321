// The whole library as inline functions, so that they are compiled for the instruction set of whoever calls them: the
// packaged library is built for the oldest processors and takes twice as long. It renames what it inlines, and macros
// that rename do not reach Swift.
#define XXH_INLINE_ALL
#include <xxhash.h>

static inline XXH128_hash_t xxh3_128(const void *bytes, size_t count) { return XXH3_128bits(bytes, count); }

static inline uint64_t xxh3_64(const void *bytes, size_t count) { return XXH3_64bits(bytes, count); }
