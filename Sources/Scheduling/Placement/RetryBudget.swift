/// How many requests may be placed again, counted over all of them: in any window, a floor and a share of the requests
/// placed in it. `PlacementLimits.restarts` bounds what one request costs, but lets a fleet that fails be asked four times
/// for everything; this bounds what all of them cost together. A value; times are microseconds.
///
/// A request leaves the window no later than the retry that was set against it. Over any time there are therefore no more
/// retries than the share of all requests, and the floor once for every window that was begun.
public struct RetryBudget: Sendable, Equatable {
    /// How much may be retried.
    public struct Limits: Sendable, Equatable {
        /// Retries in a window, however few requests are placed. An instance that dies starts everything anew that it
        /// held, and that came before the window: eight instances of 32 requests each, the default of an attention
        /// instance, may die together without a request being given up.
        public var floor = 256
        /// Retries in a window per hundred requests placed in it. With a fifth, a fleet of which one instance in six fails
        /// every request is retried in full, and one that fails altogether has to bear 1.2 times its load.
        public var sharePercent = 20

        /// The defaults.
        public init() {}
    }

    /// Length of the window. It is long beside a placement and short beside an outage; a client that is told to come
    /// back after so long finds the floor renewed.
    public static let windowMicroseconds: UInt64 = 10_000_000

    /// The window moves by slices: as many as it is long, and the one under way.
    private static let sliceMicroseconds: UInt64 = 1_000_000
    private static let sliceCount = Int(windowMicroseconds / sliceMicroseconds) + 1
    /// No floor is wider, so that sums stay numbers.
    private static let widestFloor = 1 << 40

    private struct Count: Sendable, Equatable {
        var requests = 0
        var retries = 0
    }

    /// The limits in force.
    public let limits: Limits
    /// Retries that were refused.
    public private(set) var refusals: UInt64 = 0
    private var slices = [Count](repeating: Count(), count: sliceCount)
    private var window = Count()
    private var newest: UInt64 = 0

    /// A budget of which nothing is spent.
    public init(limits: Limits = Limits()) { self.limits = limits }

    /// A request was placed for the first time.
    public mutating func placed(now: UInt64) {
        move(to: now)
        slices[index(newest)].requests += 1
        window.requests += 1
    }

    /// Spends one retry; false when none is left, and then the request must be given up.
    ///
    /// - burst: retries that a single fault may cause, all those of the largest instance; the floor is no lower.
    public mutating func spend(now: UInt64, burst: Int = 0) -> Bool {
        move(to: now)
        guard window.retries < allowance(burst) else {
            refusals += 1
            return false
        }
        slices[index(newest)].retries += 1
        window.retries += 1
        return true
    }

    /// Retries that could be spent now.
    public func remaining(now: UInt64, burst: Int = 0) -> Int {
        var moved = self
        moved.move(to: now)
        return max(0, moved.allowance(burst) - moved.window.retries)
    }

    private func allowance(_ burst: Int) -> Int {
        let floor = min(Self.widestFloor, max(0, limits.floor, burst))
        return floor + window.requests * min(1000, max(0, limits.sharePercent)) / 100
    }

    private func index(_ slice: UInt64) -> Int { Int(slice % UInt64(Self.sliceCount)) }

    /// Forgets the slices that have left the window. Time that runs backwards stands still.
    private mutating func move(to now: UInt64) {
        let slice = now / Self.sliceMicroseconds
        guard slice > newest else { return }
        for passed in 1...min(slice - newest, UInt64(Self.sliceCount)) {
            let place = index(newest + passed)
            window.requests -= slices[place].requests
            window.retries -= slices[place].retries
            slices[place] = Count()
        }
        newest = slice
    }
}
