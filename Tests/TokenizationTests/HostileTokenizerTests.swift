import Foundation
import JSON
import TestSupport
import Testing
import Tokenization

@Suite struct HostileTokenizerTests {
    @Test func whatIsNotSupportedIsRefusedByName() throws {
        let nfc = JSONValue.object([.init("type", .string("NFC"))])
        let wordPiece = JSONValue.string("WordPiece")
        let refused: [(field: String, json: JSONValue)] = [
            ("normalizer", Fixtures.small(changing: ["normalizer": nfc])),
            ("pre_tokenizer", Fixtures.small(changing: ["pre_tokenizer": .null])),
            ("pre_tokenizer", Fixtures.small(changing: ["pre_tokenizer": nfc])),
            ("decoder", Fixtures.small(changing: ["decoder": .null])),
            ("post_processor", Fixtures.small(changing: ["post_processor": nfc])),
            ("model.type", Fixtures.small(model: ["type": wordPiece])),
            ("model.dropout", Fixtures.small(model: ["dropout": .number("0.1")])),
            ("model.byte_fallback", Fixtures.small(model: ["byte_fallback": .bool(true)])),
            ("model.end_of_word_suffix", Fixtures.small(model: ["end_of_word_suffix": .string("</w>")])),
            ("model.vocab", Fixtures.small(model: ["vocab": .object([.init("a", .number("0"))])])),
            ("single_word", Fixtures.small(added: #"{"id": 300, "content": "x", "single_word": true}"#)),
        ]
        for (field, json) in refused {
            let error = #expect(throws: TokenizerError.self) { try Fixtures.tokenizer(json) }
            #expect(error?.code == .unsupported, "\(field): \(error?.description ?? "accepted")")
            #expect(error?.description.contains(field) == true, "\(field): \(error?.description ?? "accepted")")
        }
    }

    @Test func contradictionsAreRefused() throws {
        let refused: [JSONValue] = [
            Fixtures.small(added: #"{"id": 5, "content": "<x>"}"#),
            Fixtures.small(added: #"{"id": 300, "content": "a"}"#),
            Fixtures.small(added: #"{"id": 300, "content": "<x>"}, {"id": 301, "content": "<x>"}"#),
            Fixtures.small(added: #"{"id": 4294967295, "content": "<x>"}"#),
            Fixtures.small(added: #"{"id": -1, "content": "<x>"}"#),
            Fixtures.small(added: #"{"id": 300, "content": ""}"#),
            Fixtures.small(model: ["merges": .array([.string("ab")])]),
            Fixtures.small(model: ["merges": .array([.string("a b c")])]),
            Fixtures.small(model: ["merges": .array([.string("a nothere")])]),
            Fixtures.small(model: ["merges": .null]), Fixtures.small(model: ["vocab": .null]),
        ]
        for json in refused {
            let error = #expect(throws: TokenizerError.self) { try Fixtures.tokenizer(json) }
            #expect(error?.code == .malformed, "\(error?.description ?? "accepted")")
        }
    }

    @Test func mergesMayBeStrings() throws {
        let merges = JSONValue.array([.string("a b"), .string("Ġ ab")])
        let tokenizer = try Fixtures.tokenizer(Fixtures.small(model: ["merges": merges]))
        #expect(try tokenizer.encode("ab ab").count == 2)
    }

    @Test func patternsThatPCREReadsDifferentlyAreRefused() {
        let patterns = [
            "", "(", "a(", #"\h+"#, #"\w+"#, #"\b"#, "^a", "a$", "[a&&b]", "[a[b]]", "[[:alpha:]]", "a{2}+", "a{,2}",
            "[]a]", "(?m)a", "(?s:.)", "(*ACCEPT)", #"\C"#, "\\", #"\x{41}"#, #"\1"#,
            String(repeating: "a", count: 20_000),
        ]
        for pattern in patterns {
            let error = #expect(throws: TokenizerError.self) {
                try Fixtures.tokenizer(Fixtures.small(pattern: pattern))
            }
            #expect(error?.code == .unsupported, "\(pattern.prefix(40))")
        }
    }

    @Test func aPatternThatBacktracksWithoutEndIsAnErrorAndEmptyMatchesEnd() throws {
        let tokenizer = try Fixtures.tokenizer(Fixtures.small(pattern: "(?:a+)+[bc]"))
        let error = #expect(throws: TokenizerError.self) { try tokenizer.encode(String(repeating: "a", count: 60)) }
        #expect(error?.code == .limitExceeded)
        let empty = try Fixtures.tokenizer(Fixtures.small(pattern: "x*"))
        #expect(empty.decode(try empty.encode("aéxxb")) == "aéxxb")
    }

    @Test func mutatedFilesNeverTrap() throws {
        let original = Array(Fixtures.small(added: #"{"id": 300, "content": "<x>", "special": true}"#).text.utf8)
        let alphabet = Array(#"{}[]",:0123456789-+.eE\untrflasdBPE <>Ġ"#.utf8) + [0, 0x80, 0xC3, 0xFF]
        for seed in UInt64(0)..<400 {
            var generator = SeededRandom(seed: seed)
            var bytes = original
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                let place = Int.random(in: 0..<bytes.count, using: &generator)
                let count = min(Int.random(in: 1...40, using: &generator), bytes.count - place)
                let letter = alphabet.randomElement(using: &generator) ?? 0
                switch Int.random(in: 0..<5, using: &generator) {
                case 0: bytes[place] = letter
                case 1: bytes.remove(at: place)
                case 2: bytes.insert(letter, at: place)
                case 3: bytes.replaceSubrange(place..<place + count, with: [])
                default: bytes.insert(contentsOf: bytes[place..<place + count], at: place)
                }
            }
            guard let tokenizer = try? Tokenizer(parsing: bytes) else { continue }
            let text = "abc <x>'s 12 \u{1F600}\n\n zz"
            guard let ids = try? tokenizer.encode(text) else { continue }
            #expect(ids.allSatisfy { tokenizer.tokenBytes($0) != nil }, "seed \(seed)")
        }
    }

    @Test func filesThatAreNotThereOrNoJSON() {
        #expect(throws: TokenizerError.self) { try Tokenizer(contentsOf: Fixtures.folder.appending(path: "none.json")) }
        #expect(throws: TokenizerError.self) { try Tokenizer(contentsOf: Fixtures.folder) }
        let texts = [
            "", "nul", "{", "[1,]", "{\"a\" 1}", "1 2", "\"\\ud800\"", "\"abc", String(repeating: "[", count: 100_000),
            "{}", "[]", "null",
        ]
        for text in texts {
            #expect(throws: TokenizerError.self, "\(text.prefix(20))") { try Tokenizer(parsing: Array(text.utf8)) }
        }
    }
}
