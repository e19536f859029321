import RPC
import ServiceSupport
import Testing

/// What a service says of those it waits for, and when it gives up.
struct PeerWaitTests {
    private static let refused = RPCError(.unavailable, "connection refused")
    private static let secret = RPCError(.unauthenticated, "the server's shared secret differs from ours")

    private func group(_ reasons: RPCError?..., isServed: Bool = false) -> PeerWait.Group {
        PeerWait.Group(
            isServed: isServed, absent: reasons.enumerated().map { PeerWait.Absent("peer \($0.offset)", $0.element) })
    }

    /// Looks every quarter of a second; what was said or done, with the second it happened in.
    private func watch(_ seconds: Double, _ groups: (Double) -> [PeerWait.Group]) -> [(Double, PeerWait.Action)] {
        var wait = PeerWait(now: 0)
        var all: [(Double, PeerWait.Action)] = []
        for step in 0...Int(seconds * 4) {
            let time = Double(step) / 4
            for action in wait.look(groups(time), now: UInt64(time * 1e6)) {
                all.append((time, action))
                if case .giveUp = action { return all }
            }
        }
        return all
    }

    @Test func whoIsAwayIsSaidSoonAndThenSeldom() {
        let all = watch(100) { _ in [group(Self.refused)] }
        #expect(all.map(\.0) == [2, 32, 62, 92])
        #expect(all.first?.1 == .say("waiting for peer 0: connection refused"))
    }

    @Test func whoComesWithinTheFirstMomentsIsNotMentioned() {
        #expect(watch(60) { $0 < 1.9 ? [group(Self.refused)] : [group(isServed: true)] }.isEmpty)
    }

    @Test func aReasonThatChangesIsSaidAtOnceButNotWithoutEnd() {
        let late = RPCError(.unavailable, "the handshake took too long")
        let all = watch(20) { $0 < 10 ? [group(Self.refused)] : [group(late)] }
        #expect(all.map(\.0) == [2, 10])
        let flapping = watch(60) { [group(Int($0 * 4) % 2 == 0 ? Self.refused : late)] }
        #expect(flapping.count <= 60)
    }

    @Test(arguments: [
        RPCError(.unauthenticated, "the server's shared secret differs from ours"),
        RPCError(.mismatch, "model fingerprint differs"), RPCError(.invalidArgument, "bad magic"),
    ])
    func aFinalReasonIsNotWaitedFor(reason: RPCError) {
        let all = watch(60) { _ in [group(isServed: true), group(reason)] }
        #expect(all.count == 1 && all[0].0 <= 5)
        #expect(all.first?.1 == .giveUp("peer 0 cannot be called: \(reason.message)"))
    }

    @Test func oneGoodReplicaIsEnough() {
        for all in [
            watch(60) { _ in [group(Self.secret, isServed: true)] },
            watch(60) { _ in [group(Self.secret, Self.refused)] }, watch(60) { _ in [group(Self.secret, nil)] },
        ] {
            #expect(all.allSatisfy { if case .giveUp = $0.1 { false } else { true } }, "\(all)")
        }
    }

    @Test func oneBadMomentIsNoReasonToGiveUp() {
        let all = watch(10) { [group(Int($0 * 4) % 4 == 0 ? Self.refused : Self.secret)] }
        #expect(all.allSatisfy { if case .giveUp = $0.1 { false } else { true } }, "\(all)")
    }
}
