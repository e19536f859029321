/// The addresses that one name stands for, as a pure value: answers of lookups in, who joined and who left out.
///
/// A lookup that fails says nothing about the instances, so those that are known stay. An address has to be missing from
/// several answers in a row before it leaves, because a resolver may leave some out of one answer.
public struct Discovery: Sendable, Equatable {
    /// How often a name is looked up, and how much is believed.
    public struct Limits: Sendable, Equatable {
        /// Addresses of one name; those beyond are left out, those that are known come first.
        public var addresses = 64
        /// Pause between two lookups.
        public var pauseMicroseconds: UInt64 = 1_000_000
        /// Longest pause after lookups that failed; it doubles with each in a row.
        public var longestPauseMicroseconds: UInt64 = 8_000_000
        /// Answers in a row without an address after which it leaves.
        public var misses = 2

        /// The defaults.
        public init() {}
    }

    /// What a lookup showed.
    public enum Change: Sendable, Equatable, CustomStringConvertible {
        /// An instance is there that was not.
        case joined(String)
        /// An instance is there no more.
        case left(String)

        /// Two words.
        public var description: String {
            switch self {
            case .joined(let address): "\(address) joined"
            case .left(let address): "\(address) left"
            }
        }
    }

    /// The limits in force.
    public let limits: Limits
    /// Known addresses with the answers in a row that lacked them.
    private var misses: [String: Int] = [:]
    private var failuresInARow = 0
    /// Lookups that brought an answer.
    public private(set) var answers = 0
    /// Lookups that did not.
    public private(set) var failures = 0
    /// Addresses of the last answer that were beyond the limit.
    public private(set) var leftOut = 0

    /// Nothing is known yet.
    public init(limits: Limits = Limits()) { self.limits = limits }

    /// Who is there, in order.
    public var addresses: [String] { misses.keys.sorted() }

    /// Takes the answer of a lookup, in any order. Departures come before arrivals, each in order.
    public mutating func answered(_ answer: [String]) -> [Change] {
        answers += 1
        failuresInARow = 0
        let found = Set(answer)
        var changes: [Change] = []
        for address in addresses {
            misses[address] = found.contains(address) ? 0 : misses[address, default: 0] + 1
            guard misses[address, default: 0] >= max(1, limits.misses) else { continue }
            misses[address] = nil
            changes.append(.left(address))
        }
        let new = found.filter { misses[$0] == nil }.sorted()
        let room = max(0, limits.addresses - misses.count)
        leftOut = max(0, new.count - room)
        for address in new.prefix(room) {
            misses[address] = 0
            changes.append(.joined(address))
        }
        return changes
    }

    /// A lookup brought no answer.
    public mutating func failed() {
        failures += 1
        failuresInARow = min(failuresInARow + 1, 32)
    }

    /// Pause before the next lookup.
    public var pauseMicroseconds: UInt64 {
        let longest = max(limits.pauseMicroseconds, limits.longestPauseMicroseconds)
        let doubled = limits.pauseMicroseconds.multipliedReportingOverflow(by: 1 << UInt64(max(1, failuresInARow) - 1))
        return doubled.overflow ? longest : min(doubled.partialValue, longest)
    }
}
