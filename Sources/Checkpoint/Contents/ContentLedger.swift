import ContentIdentity
import Foundation
import Glibc
import Synchronization

/// Collects the digests of all tensors of a checkpoint: those known from earlier, those computed while a service reads
/// its tensors, and in the end those that no service reads.
///
/// Services that start at once share the work through the cache: while any of them reads, the others wait for what it
/// finds; then one of them completes what is left. Without a cache each computes all.
public final class ContentLedger: Sendable {
    /// Milliseconds of digesting after which somebody else may have a turn.
    private static let sliceMilliseconds = 200

    private struct State {
        var digests: [String: ContentDigest] = [:]
        var stamps: [FileStamp?]
        var loading: DigestCache.Lock?
        var bytesRead = 0
        /// How far the cache's files were read.
        var cached: [Int]
        /// Bytes of the tensors whose digests are known.
        var knownBytes = 0
    }

    private let files: [URL]
    private let tensors: [String: Checkpoint.Location]
    private let cache: DigestCache?
    private let key: String
    /// Milliseconds of waiting for others, who found nothing in that time, after which this one goes on alone: a process
    /// that was stopped would hold all up.
    private let patience: Int
    private let state: Mutex<State>

    /// A ledger of a checkpoint whose folder was read, with what `cache` knows.
    package init(files: [URL], tensors: [String: Checkpoint.Location], cache: DigestCache?, patience: Int = 5_000) {
        self.patience = patience
        self.files = files
        self.tensors = tensors
        self.cache = cache
        let stamps = files.map { file -> FileStamp? in
            let descriptor = open(file.path, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { return nil }
            defer { close(descriptor) }
            return FileStamp(descriptor: descriptor)
        }
        key = ContentDigest(of: stamps.flatMap { Array(($0?.text ?? "").utf8) }).description
        state = Mutex(State(stamps: stamps, cached: stamps.map { _ in 0 }))
        state.withLock { state in
            load(&state)
            if state.digests.count < tensors.count { state.loading = cache?.lock(key, isShared: true) }
        }
    }

    /// True when a tensor need not be digested while it is read.
    package func isKnown(_ name: String) -> Bool { state.withLock { $0.digests[name] != nil } }

    /// Takes digests that were computed while their tensors were read.
    func add(_ digests: [String: ContentDigest], of file: Int) {
        state.withLock { state in
            take(digests, &state)
            guard let stamp = state.stamps[file] else { return }
            cache?.add(digests, to: stamp)
        }
    }

    private func take(_ digests: [String: ContentDigest], _ state: inout State) {
        for (name, digest) in digests where state.digests[name] == nil {
            state.digests[name] = digest
            state.knownBytes += tensors[name]?.entry.byteCount ?? 0
        }
    }

    /// Bytes that `complete` has read so far.
    package var bytesRead: Int { state.withLock { $0.bytesRead } }

    /// The digests of all tensors. Reads those that nobody has; calls `progress` with the bytes known and of all.
    func complete(_ progress: (Int, Int) -> Void) throws(CheckpointError) -> [String: ContentDigest] {
        state.withLock { $0.loading = nil }
        let total = tensors.values.reduce(0) { $0 + $1.entry.byteCount }
        // All who complete go through tensors as they lie, so that what others have done is passed by.
        let inOrder = tensors.sorted { ($0.value.file, $0.value.entry.offset) < ($1.value.file, $1.value.entry.offset) }
        var next = inOrder.startIndex
        var (waited, known) = (0, -1)
        while true {
            let done = state.withLock { state in
                if state.digests.count < tensors.count { load(&state) }
                while next < inOrder.endIndex, state.digests[inOrder[next].key] != nil { next += 1 }
                return state.knownBytes
            }
            progress(done, total)
            guard next < inOrder.endIndex else { return state.withLock { $0.digests } }
            if done != known { (known, waited) = (done, 0) }
            let turn = cache?.lock(key, isShared: false)
            guard cache == nil || turn != nil || waited >= patience else {
                // Others are at it. What they find is in the cache when this returns.
                poll(nil, 0, 10)
                waited += 10
                continue
            }
            try digest(inOrder[next...]) { progress(done + $0, total) }
            withExtendedLifetime(turn) {}
        }
    }

    /// Digests some of `tensors`, which lie in one order, until its time is over or their file ends.
    private func digest(
        _ tensors: ArraySlice<(key: String, value: Checkpoint.Location)>, report: (Int) -> Void
    ) throws(CheckpointError) {
        guard let file = tensors.first?.value.file else { return }
        let descriptor = open(files[file].path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw CheckpointError(.unreadable, "\(files[file].lastPathComponent) cannot be opened")
        }
        defer { close(descriptor) }
        let end = ContinuousClock.now + .milliseconds(Self.sliceMilliseconds)
        var reader = BlockReader(descriptor: descriptor)
        var digests: [String: ContentDigest] = [:]
        var done = 0
        for (name, location) in tensors {
            guard location.file == file, digests.isEmpty || ContinuousClock.now < end else { break }
            guard !isKnown(name) else { continue }
            let entry = location.entry
            let digest = reader.digest(offset: entry.offset, byteCount: entry.byteCount) { count in
                done += count
                report(done)
            }
            guard let digest else { throw CheckpointError(.unreadable, "tensor \(name) cannot be read to its end") }
            digests[name] = digest
        }
        let bytes = reader.bytesRead
        state.withLock { $0.bytesRead += bytes }
        add(digests, of: file)
    }

    /// Takes what the cache knows by now.
    private func load(_ state: inout State) {
        guard let cache else { return }
        for (index, stamp) in state.stamps.enumerated() {
            guard let stamp else { continue }
            let (digests, end) = cache.digests(of: stamp, from: state.cached[index])
            state.cached[index] = end
            take(digests.filter { tensors[$0.key]?.file == index }, &state)
        }
    }
}
