import Checkpoint
import Foundation

/// What it costs to say what is in the weights, beside reading them.
struct LoadCost: Encodable {
    let bytes: Int
    /// Reading all tensors into memory, and nothing else.
    let readMilliseconds: Double
    /// The same with their digests, when nothing is known of the files.
    let firstMilliseconds: Double
    /// The same when all is known.
    let laterMilliseconds: Double

    /// Added by digesting at the first start, as a part of reading.
    var first: Double { firstMilliseconds / readMilliseconds - 1 }
    /// Added at every later start.
    var later: Double { laterMilliseconds / readMilliseconds - 1 }
}

/// Reads the same checkpoint in turn without digests, with, and with digests that are known.
struct LoadBench {
    let directory: URL
    let out: URL

    /// - Throws: `BenchError` when no cache can be made, or what `Checkpoint` throws.
    func run(rounds: Int, _ progress: Progress) throws -> LoadCost {
        progress("loading: \(rounds) rounds of reading weights with and without digests")
        let folder = out.appendingPathComponent("digests")
        var (read, first, later) = (Samples(), Samples(), Samples())
        // Once more than counted, so that files and code are in memory.
        for round in 0...rounds {
            try? FileManager.default.removeItem(at: folder)
            guard let cache = DigestCache(folder: folder) else {
                throw BenchError("\(folder.path) cannot be a cache of digests")
            }
            let checkpoint = try Checkpoint(directory: directory)
            let times = [
                try milliseconds(checkpoint), try milliseconds(checkpoint.collectingDigests(in: cache)),
                try milliseconds(checkpoint.collectingDigests(in: cache)),
            ]
            guard round > 0 else { continue }
            read.values.append(times[0])
            first.values.append(times[1])
            later.values.append(times[2])
        }
        try? FileManager.default.removeItem(at: folder)
        return LoadCost(
            bytes: try Checkpoint(directory: directory).tensors.values.reduce(0) { $0 + $1.entry.byteCount },
            readMilliseconds: read.median, firstMilliseconds: first.median, laterMilliseconds: later.median)
    }

    private func milliseconds(_ checkpoint: Checkpoint) throws -> Double {
        var checkpoint = checkpoint
        checkpoint.placement = .copied
        let start = seconds()
        let tensors = try TensorSet(checkpoint) { _ in true }
        if checkpoint.ledger != nil { _ = try checkpoint.contents() }
        return withExtendedLifetime(tensors) { (seconds() - start) * 1e3 }
    }
}
