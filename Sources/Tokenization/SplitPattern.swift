import CPCRE2

/// The regular expression that cuts a text into pieces, compiled by PCRE2. Immutable and shared; each user brings a
/// `SplitScratch`.
final class SplitPattern: Sendable {
    // PCRE2 only reads a compiled pattern.
    private nonisolated(unsafe) let code: OpaquePointer

    /// Steps after which one match is given up: a pattern that backtracks without end is an error, not a stall.
    static let matchLimit: UInt32 = 20_000_000

    /// Compiles a pattern as it stands in tokenizer.json, or throws naming what is not supported in it.
    init(_ pattern: String) throws(TokenizerError) {
        let translated = try PatternTranslation.translate(pattern)
        var number: Int32 = 0
        var offset = 0
        let settings = pcre2_compile_context_create_8(nil)
        defer { pcre2_compile_context_free_8(settings) }
        pcre2_set_newline_8(settings, UInt32(PCRE2_NEWLINE_LF))
        let options = UInt32(PCRE2_UTF) | UInt32(PCRE2_UCP) | UInt32(PCRE2_NEVER_BACKSLASH_C)
        guard let code = pcre2_compile_8(translated, translated.count, options, &number, &offset, settings) else {
            throw TokenizerError(
                .unsupported, "The Split pattern does not compile (error \(number) at byte \(offset)): \(pattern)")
        }
        _ = pcre2_jit_compile_8(code, UInt32(PCRE2_JIT_COMPLETE))
        self.code = code
    }

    deinit { pcre2_code_free_8(code) }

    /// Calls `body` for every match and for every stretch between matches, in order; `text` is valid UTF-8.
    func split(
        _ text: UnsafeBufferPointer<UInt8>, _ scratch: SplitScratch,
        _ body: (UnsafeBufferPointer<UInt8>) throws(TokenizerError) -> Void
    ) throws(TokenizerError) {
        guard let base = text.baseAddress else { return }
        var done = 0
        var place = 0
        while place < text.count {
            let result = pcre2_match_8(
                code, base, text.count, place, UInt32(PCRE2_NO_UTF_CHECK), scratch.match, scratch.context)
            if result == PCRE2_ERROR_NOMATCH { break }
            guard result > 0, let bounds = pcre2_get_ovector_pointer_8(scratch.match) else {
                throw TokenizerError(
                    .limitExceeded,
                    "Splitting the text took more than \(Self.matchLimit) steps for one match (PCRE2 error \(result)).")
            }
            let (start, end) = (bounds[0], bounds[1])
            guard end > start, start >= place, end <= text.count else {
                place = Self.next(text, place)
                continue
            }
            if start > done { try body(UnsafeBufferPointer(rebasing: text[done..<start])) }
            try body(UnsafeBufferPointer(rebasing: text[start..<end]))
            done = end
            place = end
        }
        if done < text.count { try body(UnsafeBufferPointer(rebasing: text[done...])) }
    }

    private static func next(_ text: UnsafeBufferPointer<UInt8>, _ place: Int) -> Int {
        var next = place + 1
        while next < text.count, text[next] & 0xC0 == 0x80 { next += 1 }
        return next
    }

    /// Working memory for `split`; one user at a time.
    func makeScratch() throws(TokenizerError) -> SplitScratch {
        guard let match = pcre2_match_data_create_from_pattern_8(code, nil) else { throw SplitScratch.noMemory }
        guard let context = pcre2_match_context_create_8(nil) else {
            pcre2_match_data_free_8(match)
            throw SplitScratch.noMemory
        }
        guard let stack = pcre2_jit_stack_create_8(32 << 10, 1 << 20, nil) else {
            pcre2_match_context_free_8(context)
            pcre2_match_data_free_8(match)
            throw SplitScratch.noMemory
        }
        pcre2_set_match_limit_8(context, Self.matchLimit)
        pcre2_set_heap_limit_8(context, 64 << 10)
        pcre2_jit_stack_assign_8(context, nil, UnsafeMutableRawPointer(stack))
        return SplitScratch(match: match, context: context, stack: stack)
    }
}

/// Where PCRE2 puts the bounds of a match, its limits and the stack of its compiled code (at most 1 MiB).
final class SplitScratch {
    static let noMemory = TokenizerError(.limitExceeded, "There is no memory for splitting a text.")

    let match: OpaquePointer
    let context: OpaquePointer
    private let stack: OpaquePointer

    init(match: OpaquePointer, context: OpaquePointer, stack: OpaquePointer) {
        self.match = match
        self.context = context
        self.stack = stack
    }

    deinit {
        pcre2_match_data_free_8(match)
        pcre2_match_context_free_8(context)
        pcre2_jit_stack_free_8(stack)
    }
}
