// What Swift's SIMD types cannot say so that the compiler finds the one instruction for it: shuffles of two vectors,
// and the hint of a spin loop.
#ifndef IRONLING_SIMD_H
#define IRONLING_SIMD_H

typedef float Float16Lanes __attribute__((ext_vector_type(16)));

/// Adds the lanes that are 8 apart, for two vectors at once: eight sums of a, then eight of b.
static inline Float16Lanes addLanes8Apart(Float16Lanes a, Float16Lanes b) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}

/// In every eight lanes adds those that are 4 apart: eight sums of a, then eight of b.
static inline Float16Lanes addLanes4Apart(Float16Lanes a, Float16Lanes b) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}

/// In every four lanes adds those that are 2 apart: eight sums of a, then eight of b.
static inline Float16Lanes addLanes2Apart(Float16Lanes a, Float16Lanes b) {
    return __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
           __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
}

/// Adds neighbouring lanes: eight sums of a, then eight of b.
static inline Float16Lanes addNeighbours(Float16Lanes a, Float16Lanes b) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

typedef unsigned UInt16Lanes __attribute__((ext_vector_type(16)));
typedef short Int32HalfLanes __attribute__((ext_vector_type(32)));

/// The odd bytes of 64, each an E4M3, as 32 values of bf16 with an exponent that is 120 too small.
static inline UInt16Lanes widenOddBytes(UInt16Lanes words) {
    Int32HalfLanes halves = (Int32HalfLanes)words;
    return (UInt16Lanes)(halves >> 4) & 0x87F087F0u;
}

/// The same for the even bytes.
static inline UInt16Lanes widenEvenBytes(UInt16Lanes words) {
    return widenOddBytes((UInt16Lanes)((Int32HalfLanes)words << 8));
}

/// Tells the processor that this is a loop that waits for another one.
static inline void spinHint(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
