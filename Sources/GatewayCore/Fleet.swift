import Scheduling
import Serving
import WireProtocol

/// The attention instances that a gateway knows, and what runs where: the single controller over all of them. A value;
/// the shell around it owns the connections, asks instances how they are and carries out what comes.
///
/// | an instance is | found | vanished | answers | failed |
/// |---|---|---|---|---|
/// | unknown | gets a number | – | traps | traps |
/// | silent | – | goes | serves | – |
/// | serving | – | leaves | is measured anew | loses its requests, is silent |
/// | leaving | stays, and must answer anew | – | is measured anew | loses its requests, goes |
///
/// One that leaves goes when it holds no request. A number is given again once its instance has gone, so that metrics have
/// as many labels as there are instances.
package struct Fleet: Sendable {
    /// What happens to a fleet.
    package enum Event: Sendable {
        /// An instance is at this address (`host:port`).
        case found(Part, address: String)
        /// It is not any more.
        case vanished(Part, address: String)
        /// An instance says what it holds and which service it needs and cannot call, if any.
        case answered(instance: Int, generation: UInt64, Capacity, fault: String?)
        /// It does not answer as it should; one that `isConnected` may be another than is wanted.
        case failed(instance: Int, Failure, isConnected: Bool)
        /// A request comes, under a number that is not in use, with the hashes of its prompt's blocks.
        case submit(Request, prefix: [UInt64])
        /// An attempt has sent its first token.
        case firstToken(UInt64, attempt: Int)
        /// An attempt failed.
        case broke(UInt64, Completion.Loss)
        /// A request is over, whatever way.
        case ended(UInt64)
        /// The time that was asked for has come.
        case due
    }

    /// What the shell has to do, in this order.
    package enum Action: Sendable {
        /// Connect to an instance that is new, and ask it how it is from now on.
        case connect(instance: Int, address: String)
        /// Close the connection to an instance that has gone.
        case disconnect(instance: Int)
        /// Tell the completion.
        case tell(UInt64, Completion.Event)
        /// Tell it that it was refused, for having waited too long for that.
        case expired(UInt64, PlacementDeferral)
        /// Say `due` at that time, which replaces what was asked for before; nil for never.
        case wake(at: UInt64?)
    }

    /// One attention instance.
    package struct Member: Sendable, Equatable {
        /// Its number for placement and in metrics.
        package let instance: Int
        /// Which part of a request it takes.
        package let part: Part
        /// `host:port`; the host is an address, also where the instance was found by a name.
        package let address: String
        /// Generation of the process that placement knows; nil while there is none.
        package fileprivate(set) var generation: UInt64?
        /// Why nothing is placed on the process that answers, although it does.
        package fileprivate(set) var refusal: Failure?
        /// It is told of no more, and goes when it holds no request.
        package fileprivate(set) var isLeaving = false
    }

    /// Where requests run.
    package private(set) var placement: PlacementController
    private var byInstance: [Int: Member] = [:]
    private var actions: [Action] = []

    /// A fleet of which nobody is known.
    package init(limits: PlacementLimits, policy: PlacementPolicy) {
        placement = PlacementController(limits: limits, policy: policy)
    }

    /// All instances in the order of their numbers.
    package var members: [Member] { byInstance.values.sorted { $0.instance < $1.instance } }

    /// The instance of that number.
    package subscript(instance: Int) -> Member? { byInstance[instance] }

    /// Takes in what happened at `now`, microseconds of the shell's clock.
    package mutating func handle(_ event: Event, now: UInt64) -> [Action] {
        precondition(actions.isEmpty, "an event came in the middle of another")
        defer { actions = [] }
        switch event {
        case .found(let part, let address): found(part, address)
        case .vanished(let part, let address): vanished(part, address)
        case .answered(let instance, let generation, let capacity, let fault):
            answered(instance, generation, capacity, fault, now: now)
        case .failed(let instance, let failure, let isConnected):
            failed(instance, failure, isConnected: isConnected, now: now)
        case .submit(let request, let prefix): submit(request, prefix, now: now)
        case .firstToken(let id, let attempt): placement.firstToken(id: id, attempt: attempt)
        case .broke(let id, let loss): broke(id, loss, now: now)
        case .ended(let id): placement.ended(id: id)
        case .due: break
        }
        settle(now: now)
        return actions
    }

    // MARK: Instances

    private mutating func update(_ instance: Int, _ body: (inout Member) -> Void) {
        guard var member = byInstance[instance] else {
            preconditionFailure("instance \(instance) is told of, and nobody has that number")
        }
        body(&member)
        byInstance[instance] = member
    }

    private func find(_ part: Part, _ address: String) -> Member? {
        members.first { $0.address == address && $0.part == part }
    }

    private mutating func found(_ part: Part, _ address: String) {
        if let known = find(part, address) {
            // It joins placement anew when it is asked the next time.
            if known.isLeaving { update(known.instance) { ($0.isLeaving, $0.generation) = (false, nil) } }
            return
        }
        var number = 0
        while byInstance[number] != nil { number += 1 }
        byInstance[number] = Member(instance: number, part: part, address: address)
        actions.append(.connect(instance: number, address: address))
    }

    private mutating func vanished(_ part: Part, _ address: String) {
        guard let member = find(part, address) else { return }
        update(member.instance) { $0.isLeaving = true }
        placement.leave(instance: member.instance)
    }

    private mutating func answered(
        _ instance: Int, _ generation: UInt64, _ capacity: Capacity, _ fault: String?, now: UInt64
    ) {
        precondition(capacity.requests > 0 && capacity.requestTokens > 0, "instance \(instance) has no capacity")
        update(instance) { $0.refusal = nil }
        if let member = byInstance[instance], member.generation != generation, !member.isLeaving {
            let description = InstanceDescription(
                id: instance, name: member.address, part: member.part, capacity: capacity, generation: generation)
            if placement.join(description, now: now) { update(instance) { $0.generation = generation } }
        }
        placement.holds(instance: instance, generation: generation, capacity)
        placement.chain(instance: instance, generation: generation, fault: fault)
    }

    private mutating func failed(_ instance: Int, _ failure: Failure, isConnected: Bool, now: UInt64) {
        let generation = byInstance[instance]?.generation
        update(instance) {
            $0.refusal = isConnected && failure.code == .mismatch ? failure : nil
            $0.generation = nil
        }
        guard let generation else { return }
        placement.lost(instance: instance, generation: generation, because: failure.message, now: now)
    }

    // MARK: Requests

    private mutating func submit(_ request: Request, _ prefix: [UInt64], now: UInt64) {
        switch placement.submit(request, prefix: prefix, now: now) {
        case .admitted(let place): tell(request.id, place)
        case .deferred: break
        case .rejected(.duplicate): preconditionFailure("request \(request.id) comes twice")
        case .rejected(let refusal):
            let code: ErrorCode =
                switch refusal {
                case .queueFull: .notAccepted
                case .outage: .unavailable
                case .neverFits: .limitExceeded
                case .duplicate, .invalid: .invalidArgument
                }
            refuse(request.id, code, refusal.description)
        }
    }

    private mutating func tell(_ id: UInt64, _ place: Placement) {
        guard let decode = byInstance[place.decode], byInstance[place.prefill] != nil else {
            preconditionFailure("request \(id) was placed on an instance that is gone")
        }
        actions.append(.tell(id, .placed(place, name: decode.address)))
    }

    private mutating func refuse(_ id: UInt64, _ code: ErrorCode, _ sentence: String) {
        assert(!sentence.isEmpty, "a refusal says why")
        actions.append(.tell(id, .refused(Failure(code: code, message: sentence))))
    }

    private mutating func broke(_ id: UInt64, _ loss: Completion.Loss, now: UInt64) {
        let (place, failure) = (loss.placement, loss.failure)
        precondition(place.attempt >= 0, "attempts count from 0")
        let culprit: Int? =
            switch loss.blame {
            case .nobody: nil
            case .called: place.decode
            case .prefill: place.prefill
            }
        if [.experts, .sampler].contains(failure.link), failure.code == .unavailable,
            let member = byInstance[place.decode], let generation = member.generation
        {
            // Until it is asked the next time, and says otherwise.
            placement.chain(
                instance: place.decode, generation: generation, fault: "\(member.address): \(failure.message)")
        }
        placement.broke(
            id: id, attempt: place.attempt, instance: culprit,
            avoiding: failure.link == .handOff ? place.prefill : place.decode, because: failure.message, now: now)
    }

    /// Passes on what placement decides now that something has changed.
    private mutating func settle(now: UInt64) {
        for action in placement.poll(now: now) {
            switch action {
            case .place(let id, let place): tell(id, place)
            case .restart(let id, _): actions.append(.tell(id, .moved))
            case .expired(let id, let deferral): actions.append(.expired(id, deferral))
            case .failed(let id, let reason): refuse(id, .unavailable, reason)
            case .overBudget(let id, let reason):
                let seconds = RetryBudget.windowMicroseconds / 1_000_000
                let advice = "so much has failed that it is not tried again: come back in \(seconds) seconds"
                refuse(id, .retryBudgetSpent, "\(reason); \(advice)")
            case .retired: break
            }
        }
        removeLeft()
        actions.append(.wake(at: placement.nextWake))
    }

    /// An instance that leaves is gone when placement has forgotten it.
    private mutating func removeLeft() {
        for member in members where member.isLeaving && !placement.knows(member.instance) {
            byInstance[member.instance] = nil
            actions.append(.disconnect(instance: member.instance))
        }
    }

    // MARK: Why nothing can be placed

    /// Why a request waits, with what is known of those it waits for.
    ///
    /// - reason: why an instance cannot be called, as its connection says.
    /// - lookups: why names could not be looked up.
    package func describe(
        _ deferral: PlacementDeferral, lookups: [String], reason: (Int) -> String?
    ) -> String {
        guard case .noInstance(let part) = deferral else { return deferral.description }
        let known = members.filter { $0.part.covers(part) && $0.generation == nil }.map { member in
            let reason = member.refusal?.message ?? reason(member.instance) ?? "it has not answered yet"
            return reason.hasPrefix(member.address) ? reason : "\(member.address): \(reason)"
        }
        let reasons = known + lookups
        let kind =
            byInstance.values.allSatisfy { $0.part == .both } ? "attention" : part == .prefill ? "prefill" : "decode"
        return "no \(kind) instance can be called: "
            + (reasons.isEmpty ? "no address is known yet" : reasons.joined(separator: "; "))
    }
}
