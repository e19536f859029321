/// Turns ids into text as they come. Bytes that may still become a character are held back, so that the parts put
/// together equal the text of all ids decoded at once, wherever the ids are cut.
public struct IncrementalDetokenizer: Sendable {
    private let tokenizer: any TokenCoding
    private let skipsSpecial: Bool
    /// An unfinished character: at most three bytes.
    private var held: [UInt8] = []

    /// A detokenizer at the beginning of a text. With `skipSpecial`, special tokens add nothing.
    public init(_ tokenizer: any TokenCoding, skipSpecial: Bool = false) {
        self.tokenizer = tokenizer
        skipsSpecial = skipSpecial
    }

    /// The text that is certain after this id, or nil if there is none.
    public mutating func append(_ id: UInt32) -> String? {
        guard !(skipsSpecial && tokenizer.isSpecial(id)), let bytes = tokenizer.tokenBytes(id) else { return nil }
        held.append(contentsOf: bytes)
        let certain = held.count - Self.unfinishedBytes(held)
        guard certain > 0 else { return nil }
        let text = String(decoding: held[..<certain], as: UTF8.self)
        held.removeFirst(certain)
        return text
    }

    /// The rest: U+FFFD for an unfinished character, else nothing. The next id begins a new text.
    public mutating func flush() -> String {
        defer { held = [] }
        return String(decoding: held, as: UTF8.self)
    }

    /// Bytes at the end that are the beginning of a valid character: 0 to 3.
    package static func unfinishedBytes(_ bytes: [UInt8]) -> Int {
        for count in 1..<4 where count <= bytes.count {
            let lead = bytes[bytes.count - count]
            if lead & 0xC0 == 0x80 { continue }
            guard count < length(lead) else { return 0 }
            return count == 1 || seconds(lead).contains(bytes[bytes.count - count + 1]) ? count : 0
        }
        return 0
    }

    /// Bytes of the character that a byte leads; 1 for bytes that lead none.
    private static func length(_ lead: UInt8) -> Int {
        switch lead {
        case 0xC2...0xDF: return 2
        case 0xE0...0xEF: return 3
        case 0xF0...0xF4: return 4
        default: return 1
        }
    }

    /// The second bytes that may follow a lead byte (Unicode, table 3-7).
    private static func seconds(_ lead: UInt8) -> ClosedRange<UInt8> {
        switch lead {
        case 0xE0: return 0xA0...0xBF
        case 0xED: return 0x80...0x9F
        case 0xF0: return 0x90...0xBF
        case 0xF4: return 0x80...0x8F
        default: return 0x80...0xBF
        }
    }
}
