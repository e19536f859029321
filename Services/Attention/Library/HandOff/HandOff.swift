import EventLoop
import Observability
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
final class HandOff: Sendable {
    /// A sign of life is sent this often.
    static let heartbeatMicroseconds: UInt64 = 1_000_000
    /// Longest time of a hand-off whose request has no deadline.
    static let longestMicroseconds: UInt64 = 3_600_000_000

    private let engine: AttentionEngine
    private let map: StateMap
    private let instanceID: String
    private let loop: any Loop
    private let incoming: OpenTransfers
    private let outgoing: OpenTransfers
    private let peers: PrefillPeers
    /// Segments and signs of life that came for all requests.
    var receivedItems: UInt64 { received.value }
    private let received: LoopBound<UInt64>

    init(
        engine: AttentionEngine, map: StateMap, identity: PeerIdentity, secret: [UInt8], leaseMicroseconds: UInt64,
        loop: any Loop, onRecord: @escaping @Sendable (TransferRecord) -> Void
    ) {
        self.engine = engine
        self.map = map
        self.loop = loop
        received = LoopBound(0, on: loop)
        instanceID = identity.instanceID
        var limits = TransferLimits()
        limits.leaseMicroseconds = leaseMicroseconds
        let endHold = { @Sendable (hold: Hold) in
            _ = Task(executorPreference: engine.loop) { await engine.endTransfer(hold) }
        }
        incoming = OpenTransfers(
            Transfers(isReceiver: true, limits: limits), loop: loop, endHold: endHold, onRecord: onRecord)
        outgoing = OpenTransfers(
            Transfers(isReceiver: false, limits: limits), loop: loop, endHold: endHold, onRecord: onRecord)
        peers = PrefillPeers(loop: loop, identity: identity, secret: secret)
    }

    /// Counters for the status call.
    var counters: [String: Int64] {
        var all: [String: Int64] = [:]
        for (side, counters, open) in [
            ("in", incoming.core.counters, incoming.core.openCount),
            ("out", outgoing.core.counters, outgoing.core.openCount),
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
        let transfer = try outgoing.open(
            key, peer: call.peer.instanceID,
            manifest: try manifest(message.request, from: message.first, message.generation))
        transfer.cancel = { continuation.yield(.failed(RPCError(.unavailable, "transfer \(key) was ended"))) }
        let heartbeat = Heartbeat(loop: loop, microseconds: Self.heartbeatMicroseconds) {
            continuation.yield(.heartbeat)
        }
        defer { heartbeat.end() }
        var id: UInt64?
        let result: Result<PrefillEnd, RPCError>
        do throws(RPCError) {
            engine.telemetry.requests.enter(.queued, number, promptTokens: message.request.promptCount)
            var request = message.request
            request.part = .prefill
            id = try await engine.submit(
                request, trace: call.trace, number: number, generation: message.generation, first: message.first,
                events: continuation)
            var end = try await stream(events, transfer, message, call)
            if let id { end.cachedTokens = await engine.request(id)?.cachedCount ?? 0 }
            result = .success(end)
        } catch {
            outgoing.stop(transfer, error.code == .cancelled ? .cancelled : .peerFailed(error.message))
            result = .failure(error)
        }
        if let id { await engine.forget(id) }
        return RPCPayload(metadata: try result.get().encoded())
    }

    private func manifest(
        _ request: Request, from first: Int, _ generation: UInt64
    ) throws(RPCError) -> TransferManifest {
        do throws(TransferRefusal) {
            return try map.manifest(promptTokens: request.promptCount, from: first, generation: generation)
        } catch {
            throw RPCError(.internal, error.description)
        }
    }

    private func stream(
        _ events: AsyncStream<EngineEvent>, _ transfer: OpenTransfers.Call, _ message: PrefillRequest,
        _ call: ServerCall
    ) async throws(RPCError) -> PrefillEnd {
        let arrived = loop.now
        var begun = arrived
        var memory: Reservation?
        var token: Token?
        var sign = StateSegment(kind: .progress, layer: 0, first: 0, count: 0, generation: message.generation)
        var segments: UInt32 = 0
        for await event in events {
            switch event {
            case .admitted(let reservation, let hold):
                (memory, begun) = (reservation, loop.now)
                try outgoing.handle(.accepted(hold: hold), transfer)
                try await call.send(RPCPayload(metadata: sign.encoded()))
            case .segment(let part):
                guard let memory else { continue }
                var body: AlignedBuffer?
                try outgoing.handle(.segment(part, byteCount: map.byteCount(part)), transfer) {
                    body = map.read(part, memory)
                }
                let segment = StateSegment(
                    part, promptCount: message.request.promptCount, generation: message.generation)
                sign.count = max(sign.count, segment.first + segment.count)
                segments += 1
                try await call.send(RPCPayload(metadata: segment.encoded(), body: body))
            case .heartbeat: try await call.send(RPCPayload(metadata: sign.encoded()))
            case .token(let item, _): token = item
            case .promptComplete:
                try outgoing.handle(.end(segments: Int(segments)), transfer)
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
    ///
    /// - Throws: when it does not come. The hold has ended then.
    func receive(
        _ request: Request, trace: TraceContext, from address: String, _ reservation: Reservation, _ hold: Hold,
        timeoutMicroseconds: UInt64
    ) async throws(RPCError) {
        let key = TransferKey(receiver: instanceID, request: request.id, generation: reservation.generation)
        let transfer: OpenTransfers.Call
        do throws(RPCError) {
            transfer = try incoming.open(
                key, peer: address,
                manifest: try manifest(request, from: Self.first(reservation), reservation.generation), hold: hold)
        } catch {
            await engine.endTransfer(hold)
            throw error
        }
        do throws(RPCError) {
            let (hold, end) = try await fetch(
                transfer, request, trace, from: address, reservation, timeoutMicroseconds)
            await engine.received(request.id, transfer: hold, token: end.token, cached: end.cachedTokens)
        } catch {
            incoming.stop(transfer, error.code == .cancelled ? .cancelled : .peerFailed(error.message))
            throw error
        }
    }

    /// The first token whose latents are not there already.
    private static func first(_ reservation: Reservation) -> Int { reservation.sharedPages * Block.tokens }

    private func fetch(
        _ transfer: OpenTransfers.Call, _ request: Request, _ trace: TraceContext, from address: String,
        _ reservation: Reservation, _ timeoutMicroseconds: UInt64
    ) async throws(RPCError) -> (Hold, PrefillEnd) {
        let key = transfer.key
        let samples = request.generatedCount == 0
        var asked = request.with(prompt: Array(request.prompt))
        asked.maximumTokens = samples ? 1 : 0
        asked.minimumTokens = samples ? min(1, request.minimumTokens) : 0
        let message = PrefillRequest(
            asked, transfer: key.request.id, generation: key.generation, layout: map.layout,
            first: Self.first(reservation))
        let stream: RPCStream
        do throws(RPCError) {
            stream = try await peers.client(address).stream(
                .prefill, RPCPayload(metadata: message.encoded()),
                timeoutMicroseconds: timeoutMicroseconds > 0 ? timeoutMicroseconds : Self.longestMicroseconds,
                trace: trace)
        } catch {
            throw RPCError(error.code, "prefill instance \(address): \(error.message)", link: .handOff)
        }
        transfer.cancel = { stream.cancel() }
        do throws(RPCError) {
            return try await take(stream, transfer, from: address, reservation, needsToken: samples)
        } catch {
            stream.cancel()
            throw try blame(error, transfer, address)
        }
    }

    /// What the request's caller is told of a transfer that failed.
    private func blame(
        _ error: RPCError, _ transfer: OpenTransfers.Call, _ address: String
    ) throws(RPCError) -> RPCError {
        let key = transfer.key
        switch transfer.end {
        case .leaseExpired?:
            let lease = incoming.core.limits.leaseMicroseconds
            try peers.client(address).reconnect(ifSilentSince: loop.now - min(loop.now, lease))
            return RPCError(.unavailable, "prefill instance \(address) gave no sign of life in time", link: .handOff)
        case .cancelled?: return RPCError(.cancelled, "transfer \(key) was cancelled")
        case .refused(let why)?: return RPCError(.internal, "prefill instance \(address): \(why)", link: .handOff)
        case .complete?, nil:
            return RPCError(error.code, "prefill instance \(address): \(error.message)", link: .handOff)
        case let end?:
            return RPCError(
                .unavailable, "transfer \(key) from prefill instance \(address) ended: \(end)", link: .handOff)
        }
    }

    private func take(
        _ stream: RPCStream, _ transfer: OpenTransfers.Call, from address: String, _ reservation: Reservation,
        needsToken: Bool
    ) async throws(RPCError) -> (Hold, PrefillEnd) {
        var isAccepted = false
        while let item = try await stream.next() {
            if !isAccepted { try incoming.handle(.accepted(hold: nil), transfer) }
            isAccepted = true
            received.value &+= 1
            try place(item, transfer, reservation, from: address)
        }
        let end = try Self.answer { () throws(WireError) in try PrefillEnd(decoding: stream.final?.metadata ?? []) }
        guard !needsToken || end.token != nil else { throw RPCError(.internal, "it ended without a token") }
        guard let hold = try incoming.handle(.end(segments: Int(end.segments)), transfer) else {
            throw RPCError(.internal, "transfer \(transfer.key) is over")
        }
        return (hold, end)
    }

    /// What an instance answered and cannot be read is its fault, not that of who asked.
    private static func answer<Value>(_ decode: () throws(WireError) -> Value) throws(RPCError) -> Value {
        do throws(WireError) { return try decode() } catch {
            throw RPCError(.internal, "its answer cannot be read: \(error)")
        }
    }

    /// Writes one item where the core lets it.
    private func place(
        _ item: RPCPayload, _ transfer: OpenTransfers.Call, _ reservation: Reservation, from address: String
    ) throws(RPCError) {
        let segment = try Self.answer { () throws(WireError) in try StateSegment(decoding: item.metadata) }
        guard segment.generation == transfer.key.generation else {
            throw RPCError(
                .internal, "a segment has generation \(segment.generation), not \(transfer.key.generation)")
        }
        guard let part = segment.part else { return incoming.heartbeat(peer: address) }
        guard map.fits(item.body, part) else {
            throw RPCError(.internal, "a segment of layer \(part.layer) has a body of \(item.body?.count ?? 0) bytes")
        }
        try incoming.handle(.segment(part, byteCount: map.byteCount(part)), transfer) {
            map.write(part, item.body, reservation)
        }
    }
}
