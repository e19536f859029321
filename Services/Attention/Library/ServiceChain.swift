import EventLoop
import RPC
import WireProtocol

/// The services an attention instance calls in every step, and whether it can. Confined to their loop.
struct ServiceChain: Sendable {
    /// A request that comes while one of them is away waits so long for it.
    static let patienceMicroseconds: UInt64 = 1_000_000

    /// Experts, in shard order.
    let experts: [ReplicaSet]
    let sampler: ReplicaSet

    /// All of them.
    var all: [ReplicaSet] { experts + [sampler] }

    /// Those of which no replica can be called, and has not been for a while: one connection that breaks is made again
    /// before a caller could do anything about it.
    var missing: [StatusReply.Missing] {
        all.compactMap { service in
            service.outage.map { StatusReply.Missing(service: service.name, reason: $0) }
        }
    }

    /// Returns when all can be called; throws when one cannot, so that a request goes where it can be computed instead of
    /// into a step that waits.
    func waitReady() async throws(RPCError) {
        for service in all where !service.canBeCalled {
            do throws(RPCError) {
                try await service.waitReady(timeoutMicroseconds: Self.patienceMicroseconds)
            } catch {
                throw RPCError(
                    .unavailable, "no \(service.name) can be called: \(service.reason)",
                    link: service === sampler ? .sampler : .experts)
            }
        }
    }
}
