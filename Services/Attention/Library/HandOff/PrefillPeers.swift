import EventLoop
import RPC
import ServiceSupport

/// Connections of a decode instance to the prefill instances that the gateway names, made when they are first needed.
/// Confined to its loop.
final class PrefillPeers: Sendable {
    /// Prefill instances one decode instance may be connected to.
    static let limit = 256

    private let loop: any Loop
    private let identity: PeerIdentity
    private let secret: [UInt8]
    private let clients: LoopBound<[String: RPCClient]>

    init(loop: any Loop, identity: PeerIdentity, secret: [UInt8]) {
        self.loop = loop
        clients = LoopBound([:], on: loop)
        self.identity = identity
        self.secret = secret
    }

    /// The connection to `address`, `host:port`.
    func client(_ address: String) throws(RPCError) -> RPCClient {
        if let client = clients.value[address] { return client }
        guard let place = HostPort(address) else {
            throw RPCError(.invalidArgument, "prefill must be HOST:PORT, not \"\(address.prefix(64))\"")
        }
        closeDead()
        if clients.value.count >= Self.limit { try closeIdle() }
        var limits = RPCLimits()
        limits.streamCredit = 8 << 20
        let client = RPCClient(
            loop: loop, host: place.host, port: place.port, identity: identity, role: "attention",
            fingerprint: identity.fingerprint, secret: secret, limits: limits)
        clients.value[address] = client
        client.start()
        return client
    }

    /// Instances that are gone come back at other addresses; their connections would be tried for ever.
    private func closeDead() {
        let dead = clients.value.filter { !$0.value.isReady && $0.value.isIdle && $0.value.lastError != nil }
        for address in dead.keys.sorted() { clients.value.removeValue(forKey: address)?.close() }
    }

    private func closeIdle() throws(RPCError) {
        guard let idle = clients.value.filter({ $0.value.isIdle }).min(by: { $0.key < $1.key }) else {
            throw RPCError(.notAccepted, "\(Self.limit) prefill instances are in use, which is the limit")
        }
        clients.value.removeValue(forKey: idle.key)?.close()
    }

    func close() {
        for (_, client) in clients.value.sorted(by: { $0.key < $1.key }) { client.close() }
        clients.value.removeAll()
    }
}
