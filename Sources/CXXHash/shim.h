// The packaged library is built for the oldest processors; on x86-64 it also holds what takes the widest vectors that are
// there, which the second header puts behind the same names. Macros that rename do not reach Swift.
#include <xxhash.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h>
#endif

static inline XXH128_hash_t xxh3_128(const void *bytes, size_t count) { return XXH3_128bits(bytes, count); }

static inline uint64_t xxh3_64(const void *bytes, size_t count) { return XXH3_64bits(bytes, count); }
