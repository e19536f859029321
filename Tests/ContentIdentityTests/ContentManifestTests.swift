import ContentIdentity
import TestSupport
import Testing

struct ContentManifestTests {
    /// Names and digests as a mixture of experts has them.
    private static func tensors(_ count: Int, _ generator: inout SeededRandom) -> [String: ContentDigest] {
        var tensors: [String: ContentDigest] = [:]
        for index in 0..<count {
            let name = "model.layers.\(index / 768).mlp.experts.\(index / 3 % 256).\(index % 3).weight"
            tensors[name] = ContentDigest(high: generator.next(), low: generator.next())
        }
        return tensors
    }

    @Test func equalContentsHaveNoDifference() {
        var generator = SeededRandom(seed: 1)
        let tensors = Self.tensors(2000, &generator)
        let one = ContentManifest(tensors: tensors, files: [:])
        let other = ContentManifest(
            tensors: Dictionary(uniqueKeysWithValues: tensors.sorted { $0.key > $1.key }.map { ($0.key, $0.value) }),
            files: [:])
        #expect(one.summary == other.summary)
        #expect(one.difference(from: other.summary) == nil)
    }

    @Test(arguments: 1...20) func theOneTensorThatDiffersIsNamed(seed: UInt64) throws {
        var generator = SeededRandom(seed: seed)
        let tensors = Self.tensors(20_000, &generator)
        let changed = try #require(tensors.keys.sorted().randomElement(using: &generator))
        var others = tensors
        others[changed] = ContentDigest(high: 0, low: generator.next())
        let own = ContentManifest(tensors: tensors, files: [:])
        let peer = ContentManifest(tensors: others, files: [:])
        #expect(own.difference(from: peer.summary) == "tensor \(changed)", "seed \(seed)")
        #expect(peer.difference(from: own.summary) == "tensor \(changed)", "seed \(seed)")
    }

    @Test(arguments: 1...10) func someOfManyThatDifferAreNamedAndCounted(seed: UInt64) throws {
        var generator = SeededRandom(seed: seed)
        let tensors = Self.tensors(5000, &generator)
        var others = tensors
        for name in tensors.keys.sorted().shuffled(using: &generator).prefix(5) {
            others[name] = ContentDigest(high: generator.next(), low: generator.next())
        }
        let difference = try #require(
            ContentManifest(tensors: tensors, files: [:])
                .difference(from: ContentManifest(tensors: others, files: [:]).summary))
        #expect(difference.hasPrefix("tensor model.layers."), "seed \(seed)")
        #expect(difference.contains(#/ and \d+ other tensors?$/#), "seed \(seed): \(difference)")
    }

    @Test func aFileOfBothThatDiffersIsNamedAndOneOfOneIsNot() {
        let (a, b) = (ContentDigest(of: [1]), ContentDigest(of: [2]))
        let own = ContentManifest(tensors: ["x": a], files: ["tokenizer.json": a, "generation_config.json": a])
        func peer(_ files: [String: ContentDigest]) -> ContentSummary {
            ContentManifest(tensors: ["x": a], files: files).summary
        }
        #expect(own.difference(from: peer(["tokenizer.json": b, "generation_config.json": a])) == "tokenizer.json")
        #expect(own.difference(from: peer(["generation_config.json": a])) == nil)
        #expect(own.difference(from: peer(["chat_template.jinja": b])) == nil)
    }

    @Test func sketchesAndDigestsSurviveTheirBytes() throws {
        var generator = SeededRandom(seed: 7)
        let summary = ContentManifest(tensors: Self.tensors(100, &generator), files: [:]).summary
        #expect(ContentSketch(bytes: summary.sketch.bytes) == summary.sketch)
        #expect(ContentSketch(bytes: []) == nil)
        #expect(ContentDigest(bytes: summary.weights.bytes) == summary.weights)
        #expect(ContentDigest(hexadecimal: summary.weights.description) == summary.weights)
        for text in [
            "", "0", String(repeating: "g", count: 32), String(repeating: "ä", count: 32),
            "+" + String(repeating: "0", count: 31),
        ] {
            #expect(ContentDigest(hexadecimal: text) == nil, "\(text)")
        }
    }

    @Test func digestsAreThoseOfXXH3() {
        // As `xxhsum -H2` and `xxhsum -H3` print them for no bytes and for "abc".
        #expect(ContentDigest(of: []).description == "99aa06d3014798d86001c324468d497f")
        #expect(ContentDigest(of: Array("abc".utf8)).description == "06b05ab6733a618578af5f94892f3950")
    }

    @Test func aTensorsDigestIsThatOfItsBlocks() {
        var generator = SeededRandom(seed: 3)
        let bytes = generator.bytes(BlockDigests.byteCount + 5)
        var blocks = BlockDigests()
        bytes.withUnsafeBytes { all in
            blocks.append(UnsafeRawBufferPointer(rebasing: all[..<BlockDigests.byteCount]))
            blocks.append(UnsafeRawBufferPointer(rebasing: all[BlockDigests.byteCount...]))
        }
        let parts =
            ContentDigest(of: Array(bytes[..<BlockDigests.byteCount])).bytes
            + ContentDigest(of: Array(bytes[BlockDigests.byteCount...])).bytes
        #expect(blocks.digest == ContentDigest(of: parts))
        #expect(BlockDigests().digest == ContentDigest(of: []))
    }
}
