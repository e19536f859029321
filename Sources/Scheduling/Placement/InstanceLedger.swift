import Serving

/// What an attention instance says of itself when it joins.
public struct InstanceDescription: Sendable, Equatable {
    /// Its number: the data-parallel rank of its pages and slots.
    public var id: Int
    /// Name of the process.
    public var name: String
    /// What it computes.
    public var part: Part
    /// What it holds.
    public var capacity: Capacity
    /// Grows with every restart of the process.
    public var generation: UInt64

    /// An instance.
    public init(id: Int, name: String, part: Part, capacity: Capacity, generation: UInt64) {
        self.id = id
        self.name = name
        self.part = part
        self.capacity = capacity
        self.generation = generation
    }
}

/// How full the controller takes an instance to be.
public struct InstanceLoad: Sendable, Equatable {
    /// What it said of itself.
    public let description: InstanceDescription
    /// Requests placed on it.
    public let requests: Int
    /// Tokens set aside for them.
    public let tokens: Int
    /// False while it is gone or leaving.
    public let isServing: Bool
    /// Which service it needs and cannot call, and why; nil when it can call all.
    public let fault: String?
    /// Its circuit breaker.
    public let breaker: CircuitBreaker.State
}

/// The instances and what was placed on each: the one ledger that placement decides on.
///
/// Whatever is told of an instance that is gone changes nothing: notes of it may come late.
package struct InstanceLedger: Sendable {
    /// One of them, with what was placed on it.
    package struct Instance: Sendable {
        /// What it said of itself.
        package var description: InstanceDescription
        /// Keeps requests away while it fails.
        package var breaker: CircuitBreaker
        /// False once it was lost.
        package var isPresent = true
        /// True when it takes no more requests.
        package var isLeaving = false
        /// Which service it needs and cannot call, and why.
        package var fault: String?
        /// Requests placed on it.
        package var placedRequests = 0
        /// Tokens set aside for them.
        package var placedTokens = 0
        var lastPlaced: UInt64 = 0

        /// Its number.
        package var id: Int { description.id }
        private var requests: Int { placedRequests + description.capacity.quarantinedRequests }
        private var tokens: Int { placedTokens + description.capacity.quarantinedTokens }

        func serves(_ part: Part) -> Bool { isPresent && !isLeaving && description.part.covers(part) }

        func fits(tokens more: Int) -> Bool {
            requests < description.capacity.requests && tokens + more <= description.capacity.tokens
        }

        /// Share that is taken, of requests or tokens, whichever is more.
        var share: Double {
            max(
                Double(requests) / Double(max(1, description.capacity.requests)),
                Double(tokens) / Double(max(1, description.capacity.tokens)))
        }

        func isEmptier(than other: Instance) -> Bool {
            (share, lastPlaced, id) < (other.share, other.lastPlaced, other.id)
        }
    }

    /// What became of an instance that said it is there.
    package enum Joining: Sendable { case known, restarted, late }

    private let breaker: CircuitBreaker.Limits
    private(set) var instances: [Int: Instance] = [:]
    private var clock: UInt64 = 0

    /// A ledger of which nobody is known.
    package init(breaker: CircuitBreaker.Limits) { self.breaker = breaker }

    /// All of them, in order.
    package var loads: [InstanceLoad] {
        instances.values.sorted { $0.id < $1.id }.map {
            InstanceLoad(
                description: $0.description, requests: $0.placedRequests, tokens: $0.placedTokens,
                isServing: $0.isPresent && !$0.isLeaving, fault: $0.fault, breaker: $0.breaker.state)
        }
    }

    subscript(id: Int) -> Instance? { instances[id] }

    /// Changes one that is here.
    package mutating func update(_ id: Int, _ body: (inout Instance) -> Void) {
        guard var instance = instances[id] else { return }
        body(&instance)
        precondition(
            instance.placedRequests >= 0 && instance.placedTokens >= 0,
            "instance \(id) gives back more than was placed on it")
        instances[id] = instance
    }

    // MARK: Coming and going

    /// Is there, or there again. What was placed on one that restarted must be taken off it by the caller.
    package mutating func join(_ description: InstanceDescription) -> Joining {
        guard let known = instances[description.id] else {
            instances[description.id] = Instance(
                description: description, breaker: CircuitBreaker(limits: breaker))
            return .known
        }
        guard description.generation >= known.description.generation else { return .late }
        update(description.id) {
            $0.description = description
            $0.isPresent = true
            $0.isLeaving = false
            $0.fault = nil
        }
        return description.generation > known.description.generation ? .restarted : .known
    }

    /// One that is gone for good.
    package mutating func forget(_ id: Int) { instances[id] = nil }

    /// Leaving ones that hold nothing any more, in order.
    package var retired: [Int] {
        instances.values.filter { $0.isLeaving && $0.placedRequests == 0 }.map(\.id).sorted()
    }

    // MARK: What is placed

    /// `requests` more, or fewer, with `tokens` set aside for them.
    package mutating func charge(_ id: Int, _ requests: Int, tokens: Int) {
        update(id) {
            $0.placedRequests += requests
            $0.placedTokens += tokens
        }
    }

    /// A request was sent there.
    mutating func sent(to placement: Placement, now: UInt64) {
        clock += 1
        let time = clock
        for id in Set([placement.prefill, placement.decode]) {
            update(id) {
                $0.breaker.sent(now: now)
                $0.lastPlaced = time
            }
        }
    }

    // MARK: Who could take what

    /// Tokens a request may take of the instance that serves `part` and gives most; nil when none is known.
    func largest(_ part: Part) -> Int? {
        instances.values.filter { $0.description.part.covers(part) }.map(\.description.capacity.requestTokens).max()
    }

    /// Requests the largest one holds: as many start again when it dies.
    var largestHolding: Int { instances.values.map(\.description.capacity.requests).max() ?? 0 }

    /// Why no request, however small, could be placed now, but for circuit breakers; nil when one could.
    package var outage: PlacementDeferral? {
        let well = instances.values.filter { $0.isPresent && !$0.isLeaving && $0.fault == nil }
        if well.contains(where: { $0.description.part == .both }) { return nil }
        return outage(of: .decode) ?? outage(of: .prefill)
    }

    func outage(of part: Part) -> PlacementDeferral? {
        let serving = instances.values.filter { $0.serves(part) }
        guard !serving.contains(where: { $0.fault == nil }) else { return nil }
        guard let first = serving.min(by: { $0.id < $1.id }), let fault = first.fault else { return .noInstance(part) }
        return .brokenChain(part, fault)
    }

    /// Those that could take a part of a request now.
    ///
    /// - tokens: what is set aside for the request.
    /// - whole: what it may come to take; one that could not hold that would refuse it.
    /// - Throws: why none could.
    package func candidates(
        _ part: Part, tokens: Int, whole: Int, now: UInt64
    ) throws(PlacementDeferral) -> [Instance] {
        if let outage = outage(of: part) { throw outage }
        let well = instances.values.filter { $0.serves(part) && $0.fault == nil && $0.breaker.lets(now: now) }
        guard !well.isEmpty else { throw .resting(part) }
        let fitting = well.filter { $0.fits(tokens: tokens) && whole <= $0.description.capacity.requestTokens }
        guard !fitting.isEmpty else { throw .allFull(part) }
        return fitting
    }
}
