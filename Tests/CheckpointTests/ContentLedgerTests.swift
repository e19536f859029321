import Checkpoint
import ContentIdentity
import Foundation
import Glibc
import Synchronization
import TestSupport
import Testing

struct ContentLedgerTests {
    private static let block = BlockDigests.byteCount

    /// A folder with two shards of three tensors, one of them larger than a block.
    private static func folder(seed: UInt64 = 1) throws -> CheckpointFolder {
        var generator = SeededRandom(seed: seed)
        let folder = try CheckpointFolder()
        let first = [
            StoredTensor("a.weight", "F32", [3, 4], generator.bytes(48)),
            StoredTensor("b.weight", "BF16", [block / 2 + 9], generator.bytes(block + 18)),
        ]
        let second = [
            StoredTensor("c.weight", "F32", [0], []), StoredTensor("d.weight", "F32", [2], generator.bytes(8)),
        ]
        try folder.write(safetensors(first), "1.safetensors")
        try folder.write(safetensors(second), "2.safetensors")
        try folder.write(index: [
            "a.weight": "1.safetensors", "b.weight": "1.safetensors", "c.weight": "2.safetensors",
            "d.weight": "2.safetensors",
        ])
        return folder
    }

    /// A cache in a folder that is removed with the value.
    private final class CacheFolder {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("digests-\(UUID().uuidString)")

        func cache() throws -> DigestCache { try #require(DigestCache(folder: url)) }

        deinit { try? FileManager.default.removeItem(at: url) }
    }

    private static func overwrite(_ file: URL, at offset: Int, with byte: UInt8) throws {
        let handle = try FileHandle(forUpdating: file)
        try handle.seek(toOffset: UInt64(offset))
        try handle.write(contentsOf: Data([byte]))
        try handle.close()
    }

    @Test func tensorsThatAreReadHaveTheDigestsOfThoseThatAreNot() throws {
        let folder = try Self.folder()
        let whole = try folder.open().contents()
        var checkpoint = try folder.open().collectingDigests(in: nil)
        checkpoint.placement = .copied
        _ = try TensorSet(checkpoint) { $0 < "c" }
        #expect(checkpoint.ledger?.isKnown("b.weight") == true)
        #expect(checkpoint.ledger?.isKnown("d.weight") == false)
        #expect(try checkpoint.contents() == whole)
        #expect(checkpoint.ledger?.bytesRead == 8)
        checkpoint = try folder.open().collectingDigests(in: nil)
        checkpoint.placement = .mapped
        _ = try TensorSet(checkpoint) { _ in true }
        #expect(try checkpoint.contents() == whole)
    }

    @Test func whatWasReadBeforeAFileEndsIsKnown() throws {
        let folder = try Self.folder()
        let whole = try folder.open().contents()
        var checkpoint = try folder.open().collectingDigests(in: nil)
        checkpoint.placement = .copied
        let file = folder.directory.appendingPathComponent("1.safetensors")
        let data = try Data(contentsOf: file)
        try data.dropLast(10).write(to: file)
        let error = #expect(throws: CheckpointError.self) { try TensorSet(checkpoint) { _ in true } }
        #expect(error?.description.contains("tensor b.weight cannot be read after") == true)
        #expect(checkpoint.ledger?.isKnown("a.weight") == true && checkpoint.ledger?.isKnown("b.weight") == false)
        try data.write(to: file)
        #expect(try checkpoint.contents() == whole)
    }

    @Test func aSecondStartReadsNothing() throws {
        let (folder, cache) = (try Self.folder(), CacheFolder())
        let first = try folder.open().collectingDigests(in: cache.cache())
        let contents = try first.contents()
        #expect(first.ledger?.bytesRead == 48 + Self.block + 18 + 8)
        let second = try folder.open().collectingDigests(in: cache.cache())
        #expect(second.ledger?.isKnown("b.weight") == true)
        #expect(try second.contents() == contents)
        #expect(second.ledger?.bytesRead == 0)
    }

    @Test func aFileThatWasChangedIsReadAgainThoughItsSizeAndTimeAreThoseOfBefore() throws {
        let (folder, cache) = (try Self.folder(), CacheFolder())
        let contents = try folder.open().collectingDigests(in: cache.cache()).contents()
        let file = folder.directory.appendingPathComponent("2.safetensors")
        let size = try Data(contentsOf: file).count
        let date = try #require(
            try FileManager.default.attributesOfItem(atPath: file.path)[.modificationDate] as? Date)
        try Self.overwrite(file, at: size - 1, with: 77)
        try FileManager.default.setAttributes([.modificationDate: date], ofItemAtPath: file.path)
        let second = try folder.open().collectingDigests(in: cache.cache())
        let changed = try second.contents()
        #expect(second.ledger?.bytesRead == 8)
        #expect(contents.difference(from: changed.summary) == "tensor d.weight")
    }

    @Test func holesOfASparseFileAreZerosAndAreNotRead() throws {
        let folder = try CheckpointFolder()
        let count = 5 * Self.block + 12
        let json = Data("{\"z\":{\"dtype\":\"U8\",\"shape\":[\(count)],\"data_offsets\":[0,\(count)]}}".utf8)
        try folder.write(framed(json) + Data(count: count), "model.safetensors")
        let dense = try folder.open()
        let whole = try dense.contents()
        try folder.write(framed(json), "model.safetensors")
        truncate(folder.directory.appendingPathComponent("model.safetensors").path, off_t(8 + json.count + count))
        let sparse = try folder.open().collectingDigests(in: nil)
        #expect(try sparse.contents() == whole)
        #expect(try #require(sparse.ledger).bytesRead < 2 * Self.block)
    }

    @Test(arguments: [0, 7])
    func aFileWhoseBeginningWasLostIsMadeAnew(left: Int) throws {
        let (folder, cache) = (try Self.folder(), CacheFolder())
        let contents = try folder.open().collectingDigests(in: cache.cache()).contents()
        let files = try FileManager.default.contentsOfDirectory(at: cache.url, includingPropertiesForKeys: nil)
            .filter { $0.pathExtension == "digests" }
        #expect(files.count == 2)
        for file in files { truncate(file.path, off_t(left)) }
        let second = try folder.open().collectingDigests(in: cache.cache())
        #expect(try second.contents() == contents && second.ledger?.bytesRead ?? 0 > Self.block)
        let third = try folder.open().collectingDigests(in: cache.cache())
        #expect(try third.contents() == contents && third.ledger?.bytesRead == 0)
    }

    @Test func linesThatAreNotWholeOrContradictEachOtherAreNotBelieved() {
        let digest = ContentDigest(of: [1])
        let other = ContentDigest(of: [2])
        func parse(_ text: String) -> [String: ContentDigest] { DigestCache.parse(Array(text.utf8), stamp: "s") }
        #expect(parse("s\n\(digest) a b\n\(other) c\n") == ["a b": digest, "c": other])
        #expect(parse("s\n\(digest) a\n\(other) c") == ["a": digest])
        #expect(parse("s\n\(digest) a\n\(other) a\n") == [:])
        #expect(parse("t\n\(digest) a\n") == [:])
        #expect(parse("s\nnonsense\n\n\(digest)\n\(digest) \n") == [:])
        #expect(parse("") == [:])
    }

    @Test(arguments: 1...30) func aCacheOfAnyBytesNeverTraps(seed: UInt64) {
        var generator = SeededRandom(seed: seed)
        var bytes = Array("s\n\(ContentDigest(of: [1])) a\n".utf8)
        for _ in 0..<8 {
            bytes[Int.random(in: 0..<bytes.count, using: &generator)] = generator.pick([0, 10, 32, 48, 255])
        }
        _ = DigestCache.parse(bytes, stamp: "s")
    }

    @Test func aFolderThatOthersMayWriteIsNoCache() throws {
        let cache = CacheFolder()
        _ = try cache.cache()
        #expect(chmod(cache.url.path, 0o777) == 0)
        #expect(DigestCache(folder: cache.url) == nil)
        #expect(DigestCache(folder: URL(fileURLWithPath: "/dev/null/x")) == nil)
    }

    @Test func theOldestFilesMakeRoom() throws {
        let (folder, cache) = (try Self.folder(), CacheFolder())
        _ = try cache.cache()
        for index in 0..<DigestCache.maximumFiles {
            try Data().write(to: cache.url.appendingPathComponent("\(index).digests"))
        }
        _ = try folder.open().collectingDigests(in: cache.cache()).contents()
        #expect(try FileManager.default.contentsOfDirectory(atPath: cache.url.path).count < DigestCache.maximumFiles)
    }

    @Test func servicesThatStartAtOnceDigestEveryTensorOnce() async throws {
        let (folder, cache) = (try Self.folder(), CacheFolder())
        let shares: [@Sendable (String) -> Bool] = [{ $0 < "b" }, { $0 >= "b" && $0 < "d" }, { $0 == "none" }]
        let opened = try shares.map { _ in try folder.open().collectingDigests(in: cache.cache()) }
        let group = DispatchGroup()
        let results = Mutex<[ContentManifest?]>([])
        // On threads of their own, because they wait for each other and tests share few.
        for (share, checkpoint) in zip(shares, opened) {
            group.enter()
            Thread {
                var checkpoint = checkpoint
                checkpoint.placement = .copied
                let contents = try? (TensorSet(checkpoint, owns: share), checkpoint.contents()).1
                results.withLock { $0.append(contents) }
                group.leave()
            }.start()
        }
        await withCheckedContinuation { done in group.notify(queue: .global()) { done.resume() } }
        let whole = try folder.open().contents()
        #expect(results.withLock { $0 } == [whole, whole, whole])
        // "d.weight" is nobody's.
        #expect(opened.reduce(0) { $0 + ($1.ledger?.bytesRead ?? 0) } == 8)
    }

    @Test func whoWasStoppedWhileLoadingHoldsNobodyUpForEver() throws {
        let (folder, cache) = (try Self.folder(), CacheFolder())
        let stopped = try folder.open().collectingDigests(in: cache.cache())
        var other = try folder.open()
        other.ledger = ContentLedger(files: other.files, tensors: other.tensors, cache: try cache.cache(), patience: 30)
        #expect(try other.contents() == folder.open().contents())
        #expect(stopped.ledger?.isKnown("a.weight") == false)
    }

    @Test func filesBesideTheWeightsAreDigested() throws {
        let folder = try Self.folder()
        let before = try folder.open().contents()
        try folder.write(Data("{}".utf8), "tokenizer.json")
        let with = try folder.open().contents()
        #expect(before.difference(from: with.summary) == nil)
        try folder.write(Data("{ }".utf8), "tokenizer.json")
        #expect(try folder.open().contents().difference(from: with.summary) == "tokenizer.json")
    }
}
