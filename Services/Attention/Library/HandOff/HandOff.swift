import EventLoop
import HybridModel
import RPC
import ServiceSupport
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
    private let state: StateMemory
    private let loop: any Loop
    private let leaseMicroseconds: UInt64
    let peers: PrefillPeers
    /// Counters for the status call.
    private(set) var counters: [String: Int64] = [:]

    init(engine: AttentionEngine, state: StateMemory, loop: any Loop, leaseMicroseconds: UInt64, peers: PrefillPeers) {
        self.engine = engine
        self.state = state
        self.loop = loop
        self.leaseMicroseconds = leaseMicroseconds
        self.peers = peers
    }

    private func count(_ name: String, _ amount: Int = 1) { counters[name, default: 0] += Int64(amount) }

    // MARK: Prefill instance

    /// Answers `prefill`: computes a prompt and streams its state.
    func send(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        let message = try ServiceInputs.decoded { () throws(WireError) in try PrefillRequest(decoding: call.metadata) }
        if let difference = state.layout.difference(from: message.layout) { throw RPCError(.mismatch, difference) }
        let (events, continuation) = AsyncStream.makeStream(of: EngineEvent.self)
        let heartbeat = Heartbeat(loop: loop, microseconds: Self.heartbeatMicroseconds) {
            continuation.yield(.heartbeat)
        }
        defer { heartbeat.end() }
        let id = try await engine.submit(EngineRequest(message), events: continuation)
        count("transfers_out_started")
        var transfer: Hold?
        let result: Result<PrefillEnd, RPCError>
        do throws(RPCError) {
            result = .success(try await stream(events, message, call, &transfer))
            count("transfers_out_done")
        } catch {
            result = .failure(error)
            count("transfers_out_failed")
        }
        await engine.forget(id)
        if let transfer { await engine.endTransfer(transfer) }
        return RPCPayload(metadata: try result.get().encoded())
    }

    private func stream(
        _ events: AsyncStream<EngineEvent>, _ message: PrefillRequest, _ call: ServerCall, _ transfer: inout Hold?
    ) async throws(RPCError) -> PrefillEnd {
        let arrived = loop.now
        var begun = arrived
        var sender: StateSender?
        var token: TokensItem?
        var done: UInt32 = 0
        for await event in events {
            switch event {
            case .admitted(let reservation, let hold):
                sender = StateSender(state: state, reservation: reservation)
                transfer = hold
                begun = loop.now
            case .segment(let segment):
                guard let payload = sender?.payload(segment) else { continue }
                done = max(done, segment.first + segment.count)
                count("transfers_out_bytes", payload.body?.count ?? 0)
                try await call.send(payload)
            case .heartbeat:
                let sign = StateSegment(
                    kind: .progress, layer: 0, first: 0, count: done, generation: message.generation)
                try await call.send(RPCPayload(metadata: sign.encoded()))
            case .token(let item): token = item
            case .promptComplete:
                return PrefillEnd(
                    token: message.samples ? token : nil, segments: sender?.segmentCount ?? 0,
                    queuedMicroseconds: begun - arrived, computedMicroseconds: loop.now - begun)
            case .failed(let error): throw error
            case .finished: break
            }
        }
        throw RPCError(.cancelled, "the request was cancelled")
    }

    // MARK: Decode instance

    /// Fetches the state of a request that holds memory from the prefill instance at `address`.
    func receive(
        _ id: UInt64, _ request: EngineRequest, from address: String, _ reservation: Reservation, _ transfer: Hold,
        timeoutMicroseconds: UInt64
    ) async throws(RPCError) {
        count("transfers_in_started")
        do throws(RPCError) {
            let token = try await fetch(
                id, request, from: address, reservation, timeoutMicroseconds: timeoutMicroseconds)
            guard await engine.received(id, transfer: transfer, token: token) else {
                throw RPCError(.cancelled, "the request was cancelled")
            }
            count("transfers_in_done")
        } catch {
            await engine.endTransfer(transfer)
            count("transfers_in_failed")
            throw error
        }
    }

    private func fetch(
        _ id: UInt64, _ request: EngineRequest, from address: String, _ reservation: Reservation,
        timeoutMicroseconds: UInt64
    ) async throws(RPCError) -> TokensItem? {
        let message = PrefillRequest(
            prompt: Array(request.history.prefix(request.promptCount)), transfer: id,
            generation: reservation.generation, layout: state.layout, samples: request.generated == 0,
            sampling: request.sampling, topLogprobs: request.topLogprobs, priority: request.priority,
            banned: request.banned)
        let stream = try await peers.client(address).stream(
            .prefill, RPCPayload(metadata: message.encoded()),
            timeoutMicroseconds: timeoutMicroseconds > 0 ? timeoutMicroseconds : Self.longestMicroseconds)
        let lease = LeaseTimer(loop: loop, microseconds: leaseMicroseconds) { stream.cancel() }
        defer { lease.end() }
        var receiver = StateReceiver(state: state, reservation: reservation, promptCount: request.promptCount)
        do throws(RPCError) {
            while let item = try await stream.next() {
                lease.extend()
                try receiver.accept(item)
            }
            let end = try ServiceInputs.decoded { () throws(WireError) in
                try PrefillEnd(decoding: stream.final?.metadata ?? [])
            }
            try receiver.finish(end, needsToken: message.samples)
            count("transfers_in_bytes", receiver.byteCount)
            return end.token
        } catch {
            stream.cancel()
            throw lease.isExpired
                ? RPCError(.unavailable, "prefill instance \(address) sent nothing for \(leaseMicroseconds / 1000) ms")
                : RPCError(error.code, "prefill instance \(address): \(error.message)")
        }
    }
}
