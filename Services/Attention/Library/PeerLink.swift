import EventLoop
import RPC
import ServiceSupport
import WireProtocol

extension RPCError {
    /// What the callers of an instance are told when a service it calls has failed it. One that could not be reached, or
    /// did not answer, says nothing about their requests; one that refused a call disagrees with the instance.
    func met(at link: FailedLink, _ name: String) -> RPCError {
        let isAway = isRetryable || code == .deadlineExceeded || code == .cancelled
        return RPCError(isAway ? .unavailable : .internal, "\(name): \(message)", link: link)
    }
}

/// How an attention instance reaches the services it calls.
struct PeerLink {
    let loop: any Loop
    let identity: PeerIdentity
    let secret: [UInt8]
    /// Called with the name of a service and who joined or left, where it is found by name.
    let onChange: @Sendable (String, Discovery.Change) -> Void

    /// The replicas of a service behind `address`.
    ///
    /// - rows: rows of the largest call. A replica that takes fewer would fail in mid-stream, so it gets none.
    func replicas(
        _ name: String, _ address: HostPort, role: String, layout: String = "", rows: Int
    ) -> ReplicaSet {
        ReplicaSet(
            name: name, host: address.host, loop: loop,
            makeClient: { [loop, identity, secret] host in
                RPCClient(
                    loop: loop, host: host, port: address.port, identity: identity, role: role,
                    fingerprint: identity.fingerprint, layout: layout, secret: secret)
            },
            admit: { client throws(RPCError) in try await Self.check(client, name, rows: rows) },
            onChange: { [onChange] in if AddressWatch.isName(address.host) { onChange(name, $0) } })
    }

    /// The shards of the experts, in order.
    func shards(_ experts: [HostPort], rows: Int) -> [ReplicaSet] {
        experts.enumerated().map { index, address in
            replicas(
                "experts process \(index)", address, role: "experts",
                layout: "experts shard \(index) of \(experts.count)", rows: rows)
        }
    }

    private static func check(_ peer: RPCClient, _ name: String, rows: Int) async throws(RPCError) {
        let payload = try await peer.call(.status, RPCPayload(), timeoutMicroseconds: 10_000_000)
        let status = try ServiceInputs.decoded { () throws(WireError) in try StatusReply(decoding: payload.metadata) }
        guard let maximum = status.maximumRows, maximum < rows else { return }
        throw RPCError(
            .mismatch, "\(name) takes \(maximum) rows a call, this instance has up to \(rows): raise --maximum-rows")
    }
}
