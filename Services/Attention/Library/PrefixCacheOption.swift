import Scheduling
import ServiceSupport

/// `--prefix-cache`: whether states are kept for requests that begin with the same tokens, and in how much memory.
public struct PrefixCacheOption: Sendable {
    /// The option.
    public static let option = CommandLineOption(
        "prefix-cache", value: "on|off|SIZE",
        help:
            "keep states for requests that begin alike: KV in free pages, recurrent ones in SIZE (1GiB)",
        shownFallback: "on; emulated, off")

    private static let mostSnapshots = 4096
    private static let mostByDefault = 256

    /// True unless it is off.
    public let isOn: Bool
    private let bytes: Int
    private let most: Int

    /// What the option says. Who names the memory of all states with `--state-memory` gets no more than that, unless a
    /// size is named here too.
    ///
    /// - Throws: `UsageError` when the size is none.
    public init(_ values: OptionValues) throws(UsageError) {
        let text = values.text("prefix-cache") ?? "on"
        isOn = text != "off"
        switch text {
        case "off": (bytes, most) = (0, 0)
        case "on": (bytes, most) = (values.text("state-memory") == nil ? 1 << 30 : 0, Self.mostByDefault)
        default: (bytes, most) = (try values.bytes("prefix-cache"), Self.mostSnapshots)
        }
    }

    /// Recurrent states of so many bytes that may be kept beside those of requests.
    public func snapshots(ofBytes bytesPerRequest: Int) -> Int { min(most, bytes / max(1, bytesPerRequest)) }

    func apply(to limits: inout SchedulerLimits, bytesPerRequest: Int) {
        limits.keepsPrefixes = isOn
        limits.snapshots = snapshots(ofBytes: bytesPerRequest)
    }
}
