import EventLoop
import RPC
import Scheduling
import ServiceSupport
import Serving
import StatePools
import WireProtocol

/// Moves a prompt's state from the instance that computes it to the one that decodes it. Lives on the control loop; the
/// engine goes on computing meanwhile.
///
/// The receiver owns the transfer: it has reserved memory before it asks, it alone writes there, and either side's end
/// of the call, in whatever way, is the other's proof that nothing is read or written any more.
final class HandOff: @unchecked Sendable {
    /// A sign of life is sent this often.
    static let heartbeatMicroseconds: UInt64 = 1_000_000
    /// Longest time of a hand-off whose request has no deadline.
    static let longestMicroseconds: UInt64 = 3_600_000_000

    private let engine: AttentionEngine
    private let map: StateMap
    private let instanceID: String
    private let loop: any Loop
    private let incoming: TransferDesk<IncomingState>
    private let outgoing: TransferDesk<OutgoingState>
    private let peers: PrefillPeers
    /// Segments and signs of life that came for all requests.
    private(set) var receivedItems: UInt64 = 0

    init(
        engine: AttentionEngine, map: StateMap, identity: PeerIdentity, secret: [UInt8], leaseMicroseconds: UInt64,
        loop: any Loop, onRecord: @escaping @Sendable (TransferRecord) -> Void
    ) {
        self.engine = engine
        self.map = map
        self.loop = loop
        instanceID = identity.instanceID
        var limits = TransferLimits()
        limits.leaseMicroseconds = leaseMicroseconds
        incoming = TransferDesk(limits: limits, loop: loop, onRecord: onRecord)
        outgoing = TransferDesk(limits: limits, loop: loop, onRecord: onRecord)
        peers = PrefillPeers(loop: loop, identity: identity, secret: secret)
    }

    /// Counters for the status call.
    var counters: [String: Int64] {
        var all: [String: Int64] = [:]
        for (side, counters, open) in [
            ("in", incoming.registry.counters, incoming.registry.openCount),
            ("out", outgoing.registry.counters, outgoing.registry.openCount),
        ] {
            all["transfers_\(side)_open"] = Int64(open)
            all["transfers_\(side)_bytes"] = Int64(counters.byteCount)
            all["transfers_\(side)_stale"] = Int64(counters.stale)
            all["transfers_\(side)_late"] = Int64(counters.late)
            for (label, count) in counters.ends { all["transfers_\(side)_ended_\(label)"] = Int64(count) }
        }
        return all
    }

    /// Ends the connections to prefill instances.
    func close() { peers.close() }

    // MARK: Prefill instance

    /// Answers `prefill`: computes a prompt and streams its state.
    ///
    /// - number: its number among the live requests.
    func send(_ call: ServerCall, _ number: UInt64) async throws(RPCError) -> RPCPayload {
        let message = try ServiceInputs.decoded { () throws(WireError) in try PrefillRequest(decoding: call.metadata) }
        if let difference = map.layout.difference(from: message.layout) { throw RPCError(.mismatch, difference) }
        let key = TransferKey(
            receiver: call.peer.instanceID, request: message.transfer, generation: message.generation)
        let (events, continuation) = AsyncStream.makeStream(of: EngineEvent.self)
        let transfer = try outgoing.open(key, peer: call.peer.instanceID)
        transfer.cancel = { continuation.yield(.failed(RPCError(.unavailable, "transfer \(key) was ended"))) }
        let heartbeat = Heartbeat(loop: loop, microseconds: Self.heartbeatMicroseconds) {
            continuation.yield(.heartbeat)
        }
        defer { heartbeat.end() }
        var id: UInt64?
        var hold: Hold?
        let result: Result<PrefillEnd, RPCError>
        do throws(RPCError) {
            engine.telemetry.requests.enter(.queued, number, promptTokens: message.request.promptCount)
            let request = EngineRequest(message, trace: call.trace, number: number)
            id = try await engine.submit(request, events: continuation)
            result = .success(try await stream(events, key, message, call, &hold))
        } catch {
            outgoing.stop(key, error.code == .cancelled ? .cancelled : .peerFailed(error.message))
            result = .failure(error)
        }
        if let id { await engine.forget(id) }
        if let hold { await engine.endTransfer(hold) }
        return RPCPayload(metadata: try result.get().encoded())
    }

    private func stream(
        _ events: AsyncStream<EngineEvent>, _ key: TransferKey, _ message: PrefillRequest, _ call: ServerCall,
        _ hold: inout Hold?
    ) async throws(RPCError) -> PrefillEnd {
        let arrived = loop.now
        var begun = arrived
        var memory: Reservation?
        var token: Token?
        var sign = StateSegment(
            kind: .progress, layer: 0, first: 0, count: 0, generation: message.generation)
        var segments: UInt32 = 0
        for await event in events {
            switch event {
            case .admitted(let reservation, let transfer):
                (memory, hold, begun) = (reservation, transfer, loop.now)
                try outgoing.handle(.accepted, key)
                try await call.send(RPCPayload(metadata: sign.encoded()))
            case .segment(let segment):
                guard let memory else { continue }
                let body = try outgoing.access(key) { map.read(segment, memory) }
                try outgoing.handle(.segment, key, bytes: body?.count ?? 0)
                sign.count = max(sign.count, segment.first + segment.count)
                segments += 1
                try await call.send(RPCPayload(metadata: segment.encoded(), body: body))
            case .heartbeat: try await call.send(RPCPayload(metadata: sign.encoded()))
            case .token(let item): token = item
            case .promptComplete:
                try outgoing.handle(.lastSegment, key)
                try outgoing.handle(.end, key)
                return PrefillEnd(
                    token: message.request.maximumTokens > 0 ? token : nil, segments: segments,
                    queuedMicroseconds: begun - arrived, computedMicroseconds: loop.now - begun)
            case .failed(let error): throw error
            case .finished: break
            }
            outgoing.heartbeat(peer: call.peer.instanceID)
        }
        throw RPCError(.cancelled, "the request was cancelled")
    }

    // MARK: Decode instance

    /// Fetches the state of a request that holds memory from the prefill instance at `address`.
    func receive(
        _ id: UInt64, _ request: EngineRequest, from address: String, _ reservation: Reservation, _ hold: Hold,
        timeoutMicroseconds: UInt64
    ) async throws(RPCError) {
        let key = TransferKey(receiver: instanceID, request: id, generation: reservation.generation)
        let transfer: TransferDesk<IncomingState>.Call
        do throws(RPCError) { transfer = try incoming.open(key, peer: address) } catch {
            await engine.endTransfer(hold)
            throw error
        }
        do throws(RPCError) {
            let token = try await fetch(key, transfer, request, from: address, reservation, timeoutMicroseconds)
            guard await engine.received(id, transfer: hold, token: token) else {
                throw RPCError(.cancelled, "the request was cancelled")
            }
        } catch {
            incoming.stop(key, error.code == .cancelled ? .cancelled : .peerFailed(error.message))
            await engine.endTransfer(hold)
            throw error
        }
    }

    private func fetch(
        _ key: TransferKey, _ transfer: TransferDesk<IncomingState>.Call, _ request: EngineRequest,
        from address: String, _ reservation: Reservation, _ timeoutMicroseconds: UInt64
    ) async throws(RPCError) -> Token? {
        let samples = request.generated == 0
        var asked = Request(
            prompt: Array(request.history.prefix(request.promptCount)), maximumTokens: samples ? 1 : 0)
        (asked.sampling, asked.topLogprobs, asked.priority) = (request.sampling, request.topLogprobs, request.priority)
        (asked.stopTokens, asked.minimumTokens) = (request.stopTokenIDs, samples ? min(1, request.minimumTokens) : 0)
        let message = PrefillRequest(
            asked, transfer: key.request.id, generation: key.generation, layout: map.layout)
        let stream: RPCStream
        do throws(RPCError) {
            stream = try await peers.client(address).stream(
                .prefill, RPCPayload(metadata: message.encoded()),
                timeoutMicroseconds: timeoutMicroseconds > 0 ? timeoutMicroseconds : Self.longestMicroseconds,
                trace: request.trace)
        } catch {
            throw RPCError(error.code, "prefill instance \(address): \(error.message)", link: .handOff)
        }
        transfer.cancel = { stream.cancel() }
        do throws(RPCError) {
            return try await take(stream, key, request, from: address, reservation, needsToken: samples)
        } catch {
            stream.cancel()
            switch transfer.end {
            case .leaseExpired:
                let lease = incoming.registry.limits.leaseMicroseconds
                try peers.client(address).reconnect(ifSilentSince: loop.now - min(loop.now, lease))
                throw RPCError(
                    .unavailable, "prefill instance \(address) gave no sign of life in time", link: .handOff)
            case .cancelled?: throw RPCError(.cancelled, "transfer \(key) was cancelled")
            case let end?:
                throw RPCError(
                    .unavailable, "transfer \(key) from prefill instance \(address) ended: \(end)", link: .handOff)
            case nil: throw RPCError(error.code, "prefill instance \(address): \(error.message)", link: .handOff)
            }
        }
    }

    private func take(
        _ stream: RPCStream, _ key: TransferKey, _ request: EngineRequest, from address: String,
        _ reservation: Reservation, needsToken: Bool
    ) async throws(RPCError) -> Token? {
        var ledger: SegmentLedger
        do throws(TransferRefusal) {
            ledger = SegmentLedger(
                manifest: try map.manifest(promptTokens: request.promptCount, generation: key.generation))
        } catch {
            throw RPCError(.internal, error.description)
        }
        var isAccepted = false
        while let item = try await stream.next() {
            if !isAccepted { try incoming.handle(.accepted, key) }
            isAccepted = true
            receivedItems &+= 1
            try place(item, key, &ledger, reservation, from: address)
        }
        let end = try Self.answer { () throws(WireError) in try PrefillEnd(decoding: stream.final?.metadata ?? []) }
        guard ledger.isComplete, Int(end.segments) == ledger.segmentCount else {
            throw RPCError(.internal, "it ended with parts missing: \(ledger.outstanding)")
        }
        guard !needsToken || end.token != nil else { throw RPCError(.internal, "it ended without a token") }
        try incoming.handle(.end, key)
        return end.token
    }

    /// What an instance answered and cannot be read is its fault, not that of who asked.
    private static func answer<Value>(_ decode: () throws(WireError) -> Value) throws(RPCError) -> Value {
        do throws(WireError) { return try decode() } catch {
            throw RPCError(.internal, "its answer cannot be read: \(error)")
        }
    }

    /// Checks one item against the ledger, then writes it.
    private func place(
        _ item: RPCPayload, _ key: TransferKey, _ ledger: inout SegmentLedger, _ reservation: Reservation,
        from address: String
    ) throws(RPCError) {
        let segment = try Self.answer { () throws(WireError) in try StateSegment(decoding: item.metadata) }
        guard segment.generation == key.generation else {
            throw RPCError(.internal, "a segment has generation \(segment.generation), not \(key.generation)")
        }
        guard segment.kind != .progress else { return incoming.heartbeat(peer: address) }
        guard let entry = map.entry(segment), map.fits(item.body, segment) else {
            throw RPCError(.internal, "a segment of layer \(segment.layer) is not one of this transfer")
        }
        do throws(TransferRefusal) { try ledger.enter(entry, byteCount: segment.byteCount(map.layout)) } catch {
            throw RPCError(.internal, error.description)
        }
        try incoming.access(key) { map.write(segment, item.body, reservation) }
        try incoming.handle(ledger.isComplete ? .lastSegment : .segment, key, bytes: item.body?.count ?? 0)
    }
}
