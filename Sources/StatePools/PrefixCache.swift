/// Which token sequences have their state kept, for requests that begin with the same tokens: a tree of snapshots, each
/// below the longest kept one that it begins with.
///
/// A snapshot is the KV pages and the recurrent state after all of its tokens, so it can be taken at any position, and
/// serves every sequence that goes on from there. Token ids are compared, not hashes of them: descending the tree reads
/// each of a request's tokens once, and there is nothing that could collide.
///
/// What is evicted is worth least: the tokens that would have to be computed again without it, down to the next snapshot
/// above, times the sequences that go on from it, plus an age that grows as others are evicted (greedy dual). So a
/// snapshot that several conversations fork from outlives the ends of those, and being passed on the way to another one
/// keeps nothing alive.
public struct PrefixCache: Sendable {
    /// A sequence whose state is kept.
    public struct Snapshot: Sendable {
        /// Its tokens, all of which are computed.
        public let tokens: [UInt32]
        /// Its recurrent slot and pages; the pages cover its tokens.
        public let reservation: Reservation
        let salt: String
        var parent: Int
        var children: [Int] = []
        var age: Int
    }

    /// What is kept of a sequence.
    public struct Match: Sendable, Equatable {
        /// The snapshot that it goes on from; nil for none.
        public let snapshot: Int?
        /// Tokens of that snapshot.
        public let tokens: Int
        /// The snapshot with the longest common beginning, and how long that is: their KV is kept, a recurrent state there
        /// is not.
        public let nearest: Int?
        /// Tokens that sequence and `nearest` have in common.
        public let common: Int

        /// Nothing.
        public static let none = Match(snapshot: nil, tokens: 0, nearest: nil, common: 0)
    }

    /// Snapshots that were evicted.
    public private(set) var evictions = 0
    private var snapshots: [Int: Snapshot] = [:]
    private var roots: [Int] = []
    private var age = 0
    private var nextID = 1

    /// Nothing is kept.
    public init() {}

    /// Snapshots that are kept.
    public var count: Int { snapshots.count }

    /// A snapshot that a match named, unless it was evicted since.
    public subscript(id: Int) -> Snapshot? { snapshots[id] }

    // MARK: Finding

    /// What is kept of `tokens`. At most `limit` tokens are of use; sequences of another `salt` are never seen.
    public func match(_ tokens: [UInt32], limit: Int, salt: String = "") -> Match {
        let tokens = tokens.prefix(max(0, limit))
        var (found, depth): (Int?, Int) = (nil, 0)
        while true {
            var (nearest, common) = (found, depth)
            for id in children(of: found) where found != nil || self[known: id].salt == salt {
                let shared = Self.common(self[known: id].tokens, tokens, from: depth)
                if shared > common { (nearest, common) = (id, shared) }
            }
            guard let next = nearest, next != found, self[known: next].tokens.count == common else {
                return Match(snapshot: found, tokens: depth, nearest: nearest, common: common)
            }
            (found, depth) = (next, common)
        }
    }

    /// Tokens that two sequences have in common, given that they have the first `start`.
    private static func common(_ one: [UInt32], _ other: ArraySlice<UInt32>, from start: Int) -> Int {
        let end = min(one.count, other.count)
        var index = start
        while index < end, one[index] == other[index] { index += 1 }
        return index
    }

    private func children(of id: Int?) -> [Int] { id.map { self[known: $0].children } ?? roots }

    private subscript(known id: Int) -> Snapshot {
        get { snapshots[id] ?? Self.absent(id) }
        _modify { yield &snapshots[id, default: Self.absent(id)] }
    }

    private static func absent(_ id: Int) -> Snapshot {
        preconditionFailure("snapshot \(id) is in the tree and not there")
    }

    // MARK: Changing

    /// Keeps the state of `tokens` under `reservation`. False when that very sequence is kept already.
    public mutating func insert(_ tokens: [UInt32], salt: String = "", _ reservation: Reservation) -> Bool {
        let match = match(tokens, limit: tokens.count, salt: salt)
        guard match.tokens < tokens.count else { return false }
        let id = nextID
        nextID += 1
        let below = children(of: match.snapshot).filter {
            self[known: $0].salt == salt && self[known: $0].tokens.starts(with: tokens)
        }
        for child in below {
            unlink(child)
            self[known: child].parent = id
        }
        snapshots[id] = Snapshot(
            tokens: tokens, reservation: reservation, salt: salt, parent: match.snapshot ?? 0, children: below, age: age
        )
        link(id)
        assert(self[known: id].tokens.count > match.tokens, "a snapshot is longer than the one above it")
        return true
    }

    /// A request goes on from a snapshot, which is as if it had just come.
    public mutating func use(_ id: Int) { self[known: id].age = age }

    /// Takes out the snapshot that is worth least, `spared` aside, for its memory to be released; nil when there is none.
    /// With `lighterThan`, only one that is worth less than a new leaf of so many tokens would be.
    public mutating func evict(sparing spared: Int? = nil, lighterThan tokens: Int? = nil) -> Reservation? {
        var least: (worth: Int, id: Int)?
        for id in snapshots.keys where id != spared {
            let candidate = (worth(id), id)
            if least.map({ candidate < $0 }) ?? true { least = candidate }
        }
        guard let (worth, id) = least else { return nil }
        if let tokens, worth >= age + tokens { return nil }
        age = max(age, worth)
        evictions += 1
        precondition(id != spared, "what is spared stays")
        return remove(id)
    }

    /// Forgets everything; returns what is to be released.
    public mutating func removeAll() -> [Reservation] { snapshots.keys.sorted().map { remove($0) } }

    private func worth(_ id: Int) -> Int {
        let snapshot = self[known: id]
        let covered = snapshots[snapshot.parent]?.tokens.count ?? 0
        return snapshot.age + (snapshot.tokens.count - covered) * max(1, snapshot.children.count)
    }

    private mutating func remove(_ id: Int) -> Reservation {
        let snapshot = self[known: id]
        unlink(id)
        for child in snapshot.children {
            self[known: child].parent = snapshot.parent
            link(child)
        }
        snapshots[id] = nil
        assert(!roots.contains(id), "what is forgotten is not in the tree")
        return snapshot.reservation
    }

    private mutating func link(_ id: Int) {
        let parent = self[known: id].parent
        assert(parent != id, "a snapshot is not below itself")
        if parent == 0 { roots.append(id) } else { self[known: parent].children.append(id) }
    }

    private mutating func unlink(_ id: Int) {
        let parent = self[known: id].parent
        assert(children(of: parent == 0 ? nil : parent).contains(id), "a snapshot is below the one above it")
        if parent == 0 { roots.removeAll { $0 == id } } else { self[known: parent].children.removeAll { $0 == id } }
    }
}
