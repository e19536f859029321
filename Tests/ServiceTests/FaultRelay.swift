import EventLoop
import EventLoopTesting
import TestSupport
import WireProtocol

/// Stands between services of an in-memory cluster, reads the frames that they exchange, and does one of them harm when
/// it was told to. Confined to the thread that drives the network.
final class FaultRelay: @unchecked Sendable {
    /// Whose frames.
    enum Link: CaseIterable, Hashable {
        case gatewayToAttention
        case decodeToPrefill
        case attentionToExperts
        case attentionToSampler
    }

    /// What becomes of a frame, and of what follows it.
    enum Harm: CaseIterable, Hashable {
        case droppedByte
        case flippedBit
        case truncation
        case blackHole
        case reset
    }

    /// Harm to the frame with that number, of those of calls that went over any connection of a link in one direction.
    struct Fault {
        let link: Link
        let isAnswer: Bool
        let harm: Harm
        let frame: Int
    }

    private let network: MemoryNetwork
    private let loop: MemoryLoop
    private var listeners: [any Listener] = []
    private var random: SeededRandom
    private var faults: [Fault]
    private var counts: [Lane: Int] = [:]
    /// Those that were done.
    private(set) var done: [Fault] = []
    /// False while the services start: frames are passed on, and not counted.
    var isArmed = false

    private struct Lane: Hashable {
        let link: Link
        let isAnswer: Bool
    }

    init(_ network: MemoryNetwork, seed: UInt64, _ faults: [Fault]) {
        self.network = network
        self.faults = faults
        loop = network.makeLoop("relay")
        random = SeededRandom(seed: seed)
    }

    /// From now on connections to `address` come here, and go on to the listener on `port`.
    func stand(before address: String, port: Int) throws {
        let listener = try loop.listen(host: "relay", port: 20_000 + listeners.count) { [weak self] stream in
            guard let self else { return stream.abort() }
            Pair(self, stream, port: port).open(loop)
        }
        listeners.append(listener)
        network.assign(address, port: listener.port)
    }

    func close() {
        loop.execute { [listeners] in for listener in listeners { listener.close() } }
        listeners = []
    }

    /// What is to be done to the next frame of a link.
    fileprivate func harm(_ link: Link, isAnswer: Bool) -> Harm? {
        guard isArmed else { return nil }
        let lane = Lane(link: link, isAnswer: isAnswer)
        counts[lane, default: 0] += 1
        let index = faults.firstIndex { $0.link == link && $0.isAnswer == isAnswer && $0.frame == counts[lane] }
        guard let index else { return nil }
        done.append(faults.remove(at: index))
        return done.last?.harm
    }

    fileprivate func pick(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }
}

/// One connection through the relay.
private final class Pair: @unchecked Sendable {
    private let relay: FaultRelay
    private let client: any ByteStream
    private var server: (any ByteStream)?
    private let port: Int
    private var link: FaultRelay.Link?
    private var early: [UInt8] = []
    private var waiting: [Bool: [UInt8]] = [:]
    private var swallows: Set<Bool> = []
    private var isOver = false

    init(_ relay: FaultRelay, _ client: any ByteStream, port: Int) {
        self.relay = relay
        self.client = client
        self.port = port
    }

    func open(_ loop: MemoryLoop) {
        client.start(
            onBytes: { [self] in received(Array($0), isAnswer: false) }, onClose: { [self] _ in over(client) })
        Task.immediate(executorPreference: loop) { [self] in
            do {
                let server = try await loop.connect(host: "relay", port: port, timeoutMicroseconds: 5_000_000)
                guard !isOver else { return server.abort() }
                self.server = server
                server.start(
                    onBytes: { [self] in received(Array($0), isAnswer: true) }, onClose: { [self] _ in over(server) })
                let bytes = early
                early = []
                received(bytes, isAnswer: false)
            } catch {
                client.abort()
            }
        }
    }

    private func over(_ stream: any ByteStream) {
        isOver = true
        if stream === client { server?.abort() } else { client.abort() }
    }

    private func received(_ bytes: [UInt8], isAnswer: Bool) {
        guard server != nil else { return early += bytes }
        waiting[isAnswer, default: []] += bytes
        while !isOver, let frame = takeFrame(isAnswer) { pass(frame, isAnswer: isAnswer) }
    }

    private func takeFrame(_ isAnswer: Bool) -> [UInt8]? {
        guard let bytes = waiting[isAnswer], bytes.count >= FrameHeader.byteCount,
            let header = try? bytes[..<FrameHeader.byteCount].withUnsafeBytes({ try FrameHeader(decoding: $0) })
        else { return nil }
        let count = FrameHeader.byteCount + Int(header.metadataLength) + Int(header.bodyLength)
        guard bytes.count >= count else { return nil }
        waiting[isAnswer] = Array(bytes[count...])
        if header.kind == .hello, !isAnswer { recognise(Array(bytes[FrameHeader.byteCount..<count])) }
        return Array(bytes[..<count])
    }

    /// Prefill instances are called by gateways, for their status, and by decode instances.
    private func recognise(_ metadata: [UInt8]) {
        let role = (try? Hello(decoding: metadata))?.role
        switch port {
        case MemoryCluster.Port.sampler...: link = .attentionToSampler
        case MemoryCluster.Port.experts...: link = .attentionToExperts
        default: link = role == "gateway" ? .gatewayToAttention : .decodeToPrefill
        }
    }

    private func pass(_ frame: [UInt8], isAnswer: Bool) {
        guard !swallows.contains(isAnswer) else { return }
        let isOfCall = (FrameKind.request.rawValue...FrameKind.end.rawValue).contains(frame[5])
        guard isOfCall, let link, let harm = relay.harm(link, isAnswer: isAnswer) else {
            return write(frame, isAnswer)
        }
        var bytes = frame
        switch harm {
        case .droppedByte: bytes.remove(at: relay.pick(bytes.indices))
        case .flippedBit: bytes[relay.pick(bytes.indices)] ^= 1 << UInt8(relay.pick(0..<8))
        case .truncation:
            write(Array(bytes.prefix(relay.pick(0..<bytes.count))), isAnswer)
            return end()
        case .blackHole:
            swallows.insert(isAnswer)
            return
        case .reset: return end()
        }
        write(bytes, isAnswer)
    }

    private func write(_ bytes: [UInt8], _ isAnswer: Bool) {
        if isAnswer { client.write(bytes) } else { server?.write(bytes) }
    }

    private func end() {
        isOver = true
        client.abort()
        server?.abort()
    }
}
