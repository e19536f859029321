import Foundation

/// The memory that this process may still take: what the machine has available, or what is left of a control group's
/// limit, as containers and service managers set one.
public struct MachineMemory: Sendable, Equatable {
    /// What one control group says, in the kernel's own words; empty where a file is missing.
    public struct Group: Sendable {
        /// `memory.max`, or `memory.limit_in_bytes`.
        public var limit: String
        /// `memory.current`, or `memory.usage_in_bytes`.
        public var usage: String
        /// `memory.stat`.
        public var statistics: String

        /// A group from its files.
        public init(limit: String, usage: String, statistics: String) {
            (self.limit, self.usage, self.statistics) = (limit, usage, statistics)
        }
    }

    /// Bytes that can be had without swapping.
    public let available: Int
    /// Bytes of the machine, or of the limit when that is lower.
    public let total: Int
    /// True when a control group's limit decides what is available.
    public let isLimited: Bool

    /// What is available now.
    public static func now() -> MachineMemory {
        MachineMemory(meminfo: text("/proc/meminfo"), groups: groups())
    }

    /// From the text of `/proc/meminfo` and of all groups that this process is in. A group's file cache can be dropped, so
    /// the inactive part of it counts as free.
    public init(meminfo: String, groups: [Group]) {
        var available = Self.kibibytes("MemAvailable", meminfo)
        var total = Self.kibibytes("MemTotal", meminfo)
        var isLimited = false
        for group in groups {
            guard let limit = Self.number(group.limit), limit < total else { continue }
            let used = Self.number(group.usage) ?? 0
            let cached = Self.field("inactive_file", group.statistics) ?? 0
            let left = max(0, limit - max(0, used - cached))
            total = limit
            guard left < available else { continue }
            (available, isLimited) = (left, true)
        }
        (self.available, self.total, self.isLimited) = (available, total, isLimited)
    }

    private static func number(_ text: String) -> Int? { Int(text.trimmingCharacters(in: .whitespacesAndNewlines)) }

    private static func field(_ name: String, _ text: String) -> Int? {
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count >= 2, words[0] == name { return Int(words[1]) }
        }
        return nil
    }

    private static func kibibytes(_ name: String, _ meminfo: String) -> Int {
        let (bytes, overflow) = (field("\(name):", meminfo) ?? 0).multipliedReportingOverflow(by: 1024)
        return overflow ? Int.max : bytes
    }

    /// The groups of this process from its own up to the root, of both versions of the interface.
    private static func groups() -> [Group] {
        var groups: [Group] = []
        for line in text("/proc/self/cgroup").split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            let isFirst = parts[1].split(separator: ",").contains("memory")
            guard isFirst || parts[0] == "0" else { continue }
            let root = isFirst ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup"
            let names =
                isFirst ? ["memory.limit_in_bytes", "memory.usage_in_bytes"] : ["memory.max", "memory.current"]
            var steps = parts[2].split(separator: "/").map(String.init)
            while true {
                let folder = ([root] + steps).joined(separator: "/") + "/"
                groups.append(
                    Group(
                        limit: text(folder + names[0]), usage: text(folder + names[1]),
                        statistics: text(folder + "memory.stat")))
                guard steps.popLast() != nil else { break }
            }
        }
        return groups
    }

    private static func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
}
