/// Turns the patterns of tokenizer.json, written for Oniguruma, into PCRE2. What both read alike passes through,
/// `\s` becomes the White_Space property (PCRE2's own `\s` also takes U+180E), and whatever the two read differently is
/// refused by name.
enum PatternTranslation {
    private static let maximumBytes = 16_384

    static func translate(_ pattern: String) throws(TokenizerError) -> [UInt8] {
        let input = Array(pattern.utf8)
        guard !input.isEmpty, input.count <= maximumBytes else {
            throw refusal("is empty or longer than \(maximumBytes) bytes")
        }
        var out: [UInt8] = []
        var inClass = false
        var place = 0
        while place < input.count {
            let byte = input[place]
            let next = place + 1 < input.count ? input[place + 1] : 0
            if byte == UInt8(ascii: "\\") {
                try appendEscape(next, to: &out)
                place += 2
                if "pP".utf8.contains(next) { place = copyBraces(input, place, to: &out) }
                continue
            }
            try checkDifferences(byte, next, inClass: inClass)
            if !inClass, byte == UInt8(ascii: "("), next == UInt8(ascii: "?") { try checkGroup(input[(place + 2)...]) }
            if inClass {
                if byte == UInt8(ascii: "]") { inClass = false }
            } else if byte == UInt8(ascii: "[") {
                inClass = true
                try checkClassStart(input, place + 1)
            }
            out.append(byte)
            place += 1
        }
        return out
    }

    private static func refusal(_ what: String) -> TokenizerError {
        TokenizerError(.unsupported, "The Split pattern \(what); that is not supported.")
    }

    private static func appendEscape(_ byte: UInt8, to out: inout [UInt8]) throws(TokenizerError) {
        let character = Character(Unicode.Scalar(byte))
        switch byte {
        case UInt8(ascii: "s"): out.append(contentsOf: Array("\\p{White_Space}".utf8))
        case UInt8(ascii: "S"): out.append(contentsOf: Array("\\P{White_Space}".utf8))
        case UInt8(ascii: "r"), UInt8(ascii: "n"), UInt8(ascii: "t"), UInt8(ascii: "p"), UInt8(ascii: "P"),
            UInt8(ascii: "d"), UInt8(ascii: "D"):
            out.append(contentsOf: [UInt8(ascii: "\\"), byte])
        case 0x21...0x7E where !character.isLetter && !character.isNumber:
            out.append(contentsOf: [UInt8(ascii: "\\"), byte])
        default: throw refusal("uses the escape \\\(character)")
        }
    }

    /// Copies the `{name}` of a property and returns the place behind it.
    private static func copyBraces(_ input: [UInt8], _ start: Int, to out: inout [UInt8]) -> Int {
        guard start < input.count, input[start] == UInt8(ascii: "{") else { return start }
        let end = input[start...].firstIndex(of: UInt8(ascii: "}")) ?? input.count - 1
        out.append(contentsOf: input[start...end])
        return end + 1
    }

    private static func checkDifferences(_ byte: UInt8, _ next: UInt8, inClass: Bool) throws(TokenizerError) {
        switch (byte, next) {
        case (UInt8(ascii: "["), _) where inClass: throw refusal("nests one character class in another")
        case (UInt8(ascii: "&"), UInt8(ascii: "&")) where inClass: throw refusal("intersects character classes by &&")
        case (UInt8(ascii: "^"), _) where !inClass, (UInt8(ascii: "$"), _) where !inClass:
            throw refusal("uses the anchor \(Character(Unicode.Scalar(byte)))")
        case (UInt8(ascii: "}"), UInt8(ascii: "+")) where !inClass: throw refusal("uses }+")
        case (UInt8(ascii: "{"), UInt8(ascii: ",")) where !inClass: throw refusal("uses {,n}")
        case (UInt8(ascii: "("), UInt8(ascii: "*")) where !inClass: throw refusal("uses a verb (*…)")
        default: return
        }
    }

    /// Of the inline options only `i` means the same in both dialects.
    private static func checkGroup(_ rest: ArraySlice<UInt8>) throws(TokenizerError) {
        guard let first = rest.first, !":=!<>".utf8.contains(first) else { return }
        let options = rest.prefix { $0 != UInt8(ascii: ":") && $0 != UInt8(ascii: ")") }
        guard options.allSatisfy({ $0 == UInt8(ascii: "i") || $0 == UInt8(ascii: "-") }) else {
            throw refusal("uses an inline option other than i")
        }
    }

    /// `[]` and `[^]` begin a class with a literal bracket in one dialect only.
    private static func checkClassStart(_ input: [UInt8], _ start: Int) throws(TokenizerError) {
        var place = start
        if place < input.count, input[place] == UInt8(ascii: "^") { place += 1 }
        guard place < input.count, input[place] != UInt8(ascii: "]") else { throw refusal("has an empty class") }
    }
}
