import Foundation
import TestSupport
import Testing
import Tokenization

@Suite struct TokenizerTests {
    @Test func goldenCasesEncodeToTheSameIDsAndBack() throws {
        let tokenizer = try #require(Fixtures.golden)
        let cases = try Fixtures.cases()
        #expect(cases.count > 200)
        for round in 0..<2 {
            for sample in cases {
                #expect(
                    try tokenizer.encode(sample.text) == sample.ids, "round \(round): \(sample.text.debugDescription)")
                #expect(Array(tokenizer.decode(sample.ids).utf8) == Array(sample.text.utf8))
            }
        }
        #expect(tokenizer.vocabularySize == 4096)
    }

    @Test func idsAndBytesOfTokens() throws {
        let tokenizer = try #require(Fixtures.golden)
        #expect(tokenizer.id(of: "<|role_end|>") == 4087)
        #expect(tokenizer.id(of: " the") == 268)
        #expect(tokenizer.id(of: "no such token at all") == nil)
        #expect(tokenizer.tokenBytes(4087) == Array("<|role_end|>".utf8))
        #expect(tokenizer.tokenBytes(4096) == nil && tokenizer.tokenBytes(.max) == nil)
        #expect(tokenizer.isSpecial(4087) && !tokenizer.isSpecial(4088))
        for id in 0..<UInt32(tokenizer.vocabularySize) {
            let bytes = try #require(tokenizer.tokenBytes(id))
            guard let text = String(validating: bytes, as: UTF8.self) else { continue }
            #expect(tokenizer.id(of: text) == id)
        }
        #expect(tokenizer.decode([4087, 64, .max], skipSpecial: true) == "a")
    }

    @Test func specialTokensCanBeText() throws {
        let tokenizer = try #require(Fixtures.golden)
        let text = "<role>a<|role_end|>"
        #expect(try tokenizer.encode(text).last == 4087)
        let ids = try tokenizer.encode(text, allowSpecial: false)
        #expect(ids.first == 4088 && !ids.contains(4087))
        #expect(tokenizer.decode(ids) == text)
    }

    @Test func mergesEqualTheNaiveAlgorithm() throws {
        let seed: UInt64 = 0xB9E
        var generator = SeededRandom(seed: seed)
        var parts = ["a", "b", "c", "d"]
        var merges: [(String, String)] = []
        while merges.count < 60 {
            guard let left = parts.randomElement(using: &generator), let right = parts.randomElement(using: &generator),
                left.count + right.count < 12, !merges.contains(where: { $0 == (left, right) })
            else { continue }
            merges.append((left, right))
            if !parts.contains(left + right) { parts.append(left + right) }
        }
        let tokenizer = try Fixtures.tokenizer(Fixtures.small(merges: merges))
        for length in Array(0..<64) + [200, 500] {
            let word = (0..<length).map { _ in ["a", "b", "c", "d"].randomElement(using: &generator) ?? "a" }
            let expected = naive(word, merges).map { tokenizer.id(of: $0) }
            #expect(try tokenizer.encode(word.joined()) == expected, "seed \(seed) \(word.joined())")
        }
    }

    /// Merges the pair of lowest rank, leftmost first, until there is none.
    private func naive(_ word: [String], _ merges: [(String, String)]) -> [String] {
        var word = word
        while true {
            var best: (rank: Int, place: Int)?
            for place in word.indices.dropLast() {
                guard let rank = merges.firstIndex(where: { $0 == (word[place], word[place + 1]) }) else { continue }
                if rank < best?.rank ?? .max { best = (rank, place) }
            }
            guard let best else { return word }
            word.replaceSubrange(best.place...best.place + 1, with: [word[best.place] + word[best.place + 1]])
        }
    }

    @Test(.timeLimit(.minutes(1))) func aLongPieceIsNotQuadratic() throws {
        let tokenizer = try Fixtures.tokenizer(Fixtures.small(merges: [("a", "b"), ("ab", "ab"), ("abab", "abab")]))
        let text = String(repeating: "ab", count: 50_000)
        #expect(try tokenizer.encode(text).count == 12_500)
        #expect(try tokenizer.encode(String(repeating: " ", count: 200_000) + "x").count == 200_001)
    }

    @Test func textsOverTheLimitAreRefused() throws {
        let tokenizer = try Fixtures.tokenizer(Fixtures.small())
        let text = String(repeating: "a", count: Tokenizer.maximumTextBytes + 1)
        let error = #expect(throws: TokenizerError.self) { try tokenizer.encode(text) }
        #expect(error?.code == .limitExceeded)
    }

    @Test func addedTokensStripAndPreferTheLongest() throws {
        let added = """
            {"id": 300, "content": "<x>", "special": true, "lstrip": true},
            {"id": 301, "content": "<x>y", "special": true, "rstrip": true},
            {"id": 302, "content": "zz", "special": false, "normalized": true},
            {"id": 303, "content": "z<", "special": false, "normalized": false}
            """
        let tokenizer = try Fixtures.tokenizer(Fixtures.small(added: added))
        let a = try #require(tokenizer.id(of: "a"))
        let space = try #require(tokenizer.id(of: " "))
        #expect(try tokenizer.encode("a \u{2003} <x> a") == [a, 300, space, a])
        #expect(try tokenizer.encode("a <x>y \n a") == [a, space, 301, a])
        #expect(try tokenizer.encode("a <x>", allowSpecial: false).count == 5)
        #expect(try tokenizer.encode("azza") == [a, 302, a])
        let z = try #require(tokenizer.id(of: "z"))
        #expect(try tokenizer.encode("zz<") == [z, 303], "tokens that are not normalised come first")
        #expect(tokenizer.tokenBytes(299) == nil)
        #expect(tokenizer.vocabularySize == 304)
    }

    @Test func wholeEntriesGoBeforeMergesWhenTheFileSaysSo() throws {
        let merges = [("a", "b"), ("b", "c"), ("a", "bc")]
        let plain = try Fixtures.tokenizer(Fixtures.small(merges: merges))
        let whole = try Fixtures.tokenizer(Fixtures.small(merges: merges, model: ["ignore_merges": .bool(true)]))
        #expect(try plain.encode("abc").map { plain.tokenBytes($0)?.count } == [2, 1])
        #expect(try whole.encode("abc").map { whole.tokenBytes($0)?.count } == [3])
    }

    @Test func splittingFollowsThePattern() throws {
        let merges = [("a", "b"), ("Ġ", "Ġ"), ("1", "2"), ("Ġ", "ab")]
        let tokenizer = try Fixtures.tokenizer(Fixtures.small(merges: merges))
        func lengths(_ text: String) throws -> [Int?] {
            try tokenizer.encode(text).map { tokenizer.tokenBytes($0)?.count }
        }
        #expect(try lengths("12") == [1, 1], "digits stand alone")
        #expect(try lengths("   ab") == [2, 3], "the last space goes with the word")
        #expect(try lengths("\u{180E}\u{180E}") == [1, 1, 1, 1, 1, 1])
    }

    @Test func callsFromManyTasksAgree() async throws {
        let tokenizer = try #require(Fixtures.golden)
        let cases = try Fixtures.cases()
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for _ in 0..<8 {
                group.addTask { try cases.allSatisfy { try tokenizer.encode($0.text) == $0.ids } }
            }
            for try await agrees in group { #expect(agrees) }
        }
    }

    @Test func bytesWithoutATokenizer() throws {
        let tokenizer = ByteTokenizer()
        #expect(try tokenizer.encode("aé") == [0x61, 0xC3, 0xA9])
        #expect(tokenizer.decode([0x61, 0xC3, 0xA9, 256, 4000]) == "aé")
        #expect(tokenizer.id(of: "a") == 0x61 && tokenizer.id(of: "é") == nil && tokenizer.tokenBytes(256) == nil)
    }
}
