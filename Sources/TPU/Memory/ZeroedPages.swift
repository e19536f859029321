#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#elseif canImport(Darwin)
    import Darwin
#endif

/// Zeroed memory whose pages come into being when they are touched; nil for nothing or when there is none left.
func zeroedPages(_ byteCount: Int) -> UnsafeMutableRawPointer? { byteCount > 0 ? calloc(1, byteCount) : nil }

/// Gives `zeroedPages` back.
func releasePages(_ pages: UnsafeMutableRawPointer?) { free(pages) }
