import Checkpoint
import Foundation
import Observability
import Synchronization

/// The checkpoint that a service serves: digested while it is read, and with reports of how far that is.
public enum ServedCheckpoint {
    /// The one that `--model` names; what its tensors hold is looked up and kept where `--digest-cache` says.
    ///
    /// - Throws: `UsageError`, or a `CheckpointError` that names what is wrong with the folder.
    public static func open(_ values: OptionValues) throws -> Checkpoint {
        let cache = try cache(values)
        var checkpoint = try ServiceInputs.checkpoint(values).collectingDigests(in: cache)
        let reports = Mutex(LoadReports(start: Stopwatch.now))
        let report = ServiceReport(values)
        checkpoint.onProgress = { progress in
            guard let text = reports.withLock({ $0.text(progress, now: Stopwatch.now) }) else { return }
            report.tell(.progress(text))
        }
        return checkpoint
    }

    private static func cache(_ values: OptionValues) throws -> DigestCache? {
        switch values.text("digest-cache") {
        case nil: return DigestCache.standard(environment: ProcessInfo.processInfo.environment)
        case "off": return nil
        case let path?:
            guard let cache = DigestCache(folder: URL(fileURLWithPath: path)) else {
                throw StartError("--digest-cache \(path) is no folder that this user alone may write to")
            }
            return cache
        }
    }

    /// `--digest-cache`.
    public static let cacheOption = CommandLineOption(
        "digest-cache", value: "DIR",
        help: "where to keep what was read of weights to tell checkpoints apart; off: nowhere",
        shownFallback: "ironling/digests among the user's caches")
}
