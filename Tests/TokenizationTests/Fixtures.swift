import Foundation
import JSON
import Tokenization

/// The golden tokenizer, its cases, and a small tokenizer that tests change as they like.
enum Fixtures {
    struct Case: Decodable, Sendable {
        let text: String
        let ids: [UInt32]
    }

    static let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Fixtures/golden/tokenizer")

    static let golden: Tokenizer? = try? Tokenizer(contentsOf: folder.appending(path: "tokenizer.json"))

    static func cases() throws -> [Case] {
        try JSONDecoder().decode([Case].self, from: Data(contentsOf: folder.appending(path: "cases.json")))
    }

    /// The scalar of each byte in the byte alphabet, written down independently of the sources.
    static let alphabet: [String] = {
        var next: UInt32 = 0x100
        return (0..<256).map { (byte: UInt32) in
            var code = byte
            if !((0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || (0xAE...0xFF).contains(byte)) {
                code = next
                next += 1
            }
            return Unicode.Scalar(code).map { String($0) } ?? ""
        }
    }()

    static let lingPattern =
        #"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"#

    /// A tokenizer with the 256 bytes, the words given and the merges given, and added tokens behind them.
    static func small(
        merges: [(String, String)] = [("a", "b"), ("ab", "c"), ("Ġ", "ab")], added: String = "",
        pattern: String = lingPattern, changing: [String: JSONValue] = [:], model changes: [String: JSONValue] = [:]
    ) -> JSONValue {
        var names = alphabet
        for (left, right) in merges where !names.contains(left + right) { names.append(left + right) }
        let vocabulary = names.enumerated().map { JSONValue.Member($1, .number("\($0)")) }
        let list = merges.map { JSONValue.array([.string($0), .string($1)]) }
        let model: [(String, JSONValue)] = [
            ("type", .string("BPE")), ("dropout", .null), ("vocab", .object(vocabulary)), ("merges", .array(list)),
        ]
        let byteLevel: JSONValue = .object([
            .init("type", .string("ByteLevel")), .init("add_prefix_space", .bool(false)),
            .init("use_regex", .bool(false)),
        ])
        let split: JSONValue = .object([
            .init("type", .string("Split")), .init("pattern", .object([.init("Regex", .string(pattern))])),
            .init("behavior", .string("Isolated")), .init("invert", .bool(false)),
        ])
        let steps: JSONValue = .object([
            .init("type", .string("Sequence")), .init("pretokenizers", .array([split, byteLevel])),
        ])
        let tokens = (try? JSONValue(parsing: Array("[\(added)]".utf8))) ?? .null
        let whole: [(String, JSONValue)] = [
            ("added_tokens", tokens), ("normalizer", .null), ("pre_tokenizer", steps), ("decoder", byteLevel),
            ("model", object(model, changes)),
        ]
        return object(whole, changing)
    }

    private static func object(_ members: [(String, JSONValue)], _ changes: [String: JSONValue]) -> JSONValue {
        let kept = members.filter { changes[$0.0] == nil }.map { JSONValue.Member($0.0, $0.1) }
        return .object(kept + changes.sorted { $0.key < $1.key }.map { JSONValue.Member($0.key, $0.value) })
    }

    static func tokenizer(_ json: JSONValue) throws -> Tokenizer { try Tokenizer(parsing: Array(json.text.utf8)) }
}
