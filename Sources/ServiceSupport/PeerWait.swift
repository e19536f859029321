import EventLoop
import Foundation
import RPC

/// Whom a service waits for when it starts: what is said of it, and when waiting is in vain. A pure value; times are
/// microseconds.
public struct PeerWait: Sendable {
    /// Somebody who cannot be called yet.
    public struct Absent: Sendable, Equatable {
        /// Such as "experts process 0 at 127.0.0.1:7002".
        public let name: String
        /// Why; nil while the first attempt runs.
        public let reason: RPCError?

        /// Somebody and the reason.
        public init(_ name: String, _ reason: RPCError?) {
            self.name = name
            self.reason = reason
        }

        /// The reason in words, without the address where the name ends in it.
        var sentence: String {
            guard let message = reason?.message else { return "still connecting" }
            let place = name.split(separator: " ").last.map { "\($0): " } ?? ""
            return message.hasPrefix(place) ? String(message.dropFirst(place.count)) : message
        }

        /// True when waiting changes nothing: another secret, model, layout or role, or no protocol of ours.
        var isFinal: Bool {
            guard let reason else { return false }
            return [.unauthenticated, .mismatch, .invalidArgument].contains(reason.code)
        }
    }

    /// Those of whom one is enough.
    public struct Group: Sendable, Equatable {
        /// True when one of them can be called.
        public let isServed: Bool
        /// The others.
        public let absent: [Absent]

        /// A group.
        public init(isServed: Bool, absent: [Absent]) {
            self.isServed = isServed
            self.absent = absent
        }

        /// The replicas of a service. On their loop.
        public init(_ replicas: ReplicaSet) {
            self.init(isServed: replicas.canBeCalled, absent: replicas.absences.map { Absent($0.name, $0.reason) })
        }

        /// All that are there can never be called.
        var isInVain: Bool { !isServed && !absent.isEmpty && absent.allSatisfy(\.isFinal) }
    }

    /// What to do.
    public enum Action: Sendable, Equatable {
        /// Print a line.
        case say(String)
        /// End with this sentence.
        case giveUp(String)
    }

    /// Nothing is said before: services that start together find each other by then.
    public static let grace: UInt64 = 2_000_000
    /// A line whose reason did not change is said again after.
    public static let pause: UInt64 = 30_000_000
    /// A reason that changes again and again is said no more often.
    public static let shortestPause: UInt64 = 1_000_000
    /// Waiting must be in vain for so long: one bad frame, or a peer that is about to be replaced, is no reason.
    public static let patience: UInt64 = 1_500_000

    private let began: UInt64
    private var said: [String: (reason: String, time: UInt64)] = [:]
    private var vainSince: [Int: UInt64] = [:]

    /// Waiting begins.
    public init(now: UInt64) { began = now }

    /// Looks at everybody who is waited for.
    public mutating func look(_ groups: [Group], now: UInt64) -> [Action] {
        for (index, group) in groups.enumerated() {
            guard group.isInVain, let first = group.absent.first else {
                vainSince[index] = nil
                continue
            }
            let since = vainSince[index] ?? now
            vainSince[index] = since
            if now >= since + Self.patience {
                return [.giveUp("\(first.name) cannot be called: \(first.sentence)")]
            }
        }
        guard now >= began + Self.grace else { return [] }
        return groups.flatMap(\.absent).compactMap { absent in
            let reason = absent.sentence
            if let last = said[absent.name],
                now < last.time + (last.reason == reason ? Self.pause : Self.shortestPause)
            {
                return nil
            }
            said[absent.name] = (reason, now)
            return .say("waiting for \(absent.name): \(reason)")
        }
    }
}

extension ServiceProcess {
    /// Longest wait for the services that are called.
    public static let peerWaitOption = CommandLineOption(
        "peer-wait", value: "SECONDS", help: "longest wait at start for the services it calls", fallback: "600")

    /// Connects, and says meanwhile on standard error whom it waits for and why; ends the process with status 1 when
    /// that is in vain. `connect` is given the time of `--peer-wait`, microseconds.
    ///
    /// - Throws: what `connect` throws that waiting does not mend.
    public static func waitForPeers(
        _ values: OptionValues, service: String, loop: any Loop,
        _ groups: @escaping @Sendable () async -> [PeerWait.Group], connect: (UInt64) async throws -> Void
    ) async throws {
        let watch = Task(executorPreference: loop) {
            var wait = PeerWait(now: loop.now)
            while !Task.isCancelled {
                for action in wait.look(await groups(), now: loop.now) where !Task.isCancelled {
                    switch action {
                    case .say(let line): complain("ironling-\(service): \(line)")
                    case .giveUp(let sentence):
                        complain("ironling-\(service): \(sentence)")
                        exit(1)
                    }
                }
                await Waiters().wait(loop, atMostMicroseconds: 250_000) { true }
            }
        }
        defer { watch.cancel() }
        try await connect(UInt64(try values.integer("peer-wait", in: 1...604_800)) * 1_000_000)
    }
}
