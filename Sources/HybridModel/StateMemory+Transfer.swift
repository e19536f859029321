/// Copies between the pools and what travels in a hand-off. Rows keep their bits.
extension StateMemory {
    /// Copies the latents of `tokens` of the `index`-th MLA layer into `out` [tokens, R + dr].
    public func copyLatents(
        pages: [Int], tokens: Range<Int>, latentIndex index: Int, into out: UnsafeMutablePointer<Float>
    ) {
        forEachRun(of: tokens) { page, offset, run, first in
            let rows = latents(page: pages[page], latentIndex: index) + offset * latentFloats
            (out + first * latentFloats).update(from: rows, count: run * latentFloats)
        }
    }

    /// Puts latents `rows` [tokens, R + dr] in their place.
    public func storeLatents(
        pages: [Int], tokens: Range<Int>, latentIndex index: Int, from rows: UnsafePointer<Float>
    ) {
        forEachRun(of: tokens) { page, offset, run, first in
            let place = latents(page: pages[page], latentIndex: index) + offset * latentFloats
            place.update(from: rows + first * latentFloats, count: run * latentFloats)
        }
    }

    /// Calls `body` for every run of tokens within one page: page, offset in it, count, and where the run starts among
    /// `tokens`.
    private func forEachRun(of tokens: Range<Int>, _ body: (Int, Int, Int, Int) -> Void) {
        var token = tokens.lowerBound
        while token < tokens.upperBound {
            let offset = token % Self.pageTokens
            let run = min(Self.pageTokens - offset, tokens.upperBound - token)
            body(token / Self.pageTokens, offset, run, token - tokens.lowerBound)
            token += run
        }
    }
}
