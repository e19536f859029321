import WireProtocol

/// What becomes of a request when something fails, by what failed, where, and how far the request was: the one place that
/// decides who is blamed and what a client may see. A value; SPECIFICATION section 6 has the table in words.
///
/// An instance, experts and samplers are asked only for what the gateway has checked, so nothing that they answer can be
/// the client's fault: that is said by the gateway alone.
package enum FaultTable {
    /// Where a fault was met, as the gateway sees it.
    package enum Place: Sendable, CaseIterable {
        /// In the gateway: what it checks, counts and times itself.
        case gateway
        /// At the attention instance that was called, or on the connection to it.
        case instance
        /// At the experts that instance calls.
        case experts
        /// At the sampler that instance calls.
        case sampler
        /// At the prefill instance that was to hand the prompt's state over.
        case handOff
    }

    /// How far the request was.
    package enum Phase: Sendable, CaseIterable {
        /// It is placed, and nothing of the answer has come.
        case prompt
        /// Tokens have come, and may have been passed on.
        case tokens
        /// The time that its client, or the gateway, gives it is over.
        case timeUp
    }

    /// Whether it is placed again.
    package enum Retry: Sendable {
        /// No.
        case never
        /// Once: those who should agree do not, and another pair may.
        case once
        /// As often as the limits of placement and its budget allow.
        case limited
    }

    /// Whose circuit breaker counts a failure.
    package enum Blame: Sendable {
        /// Nobody's.
        case nobody
        /// The instance that was called.
        case called
        /// The prefill instance that was named to it.
        case prefill
    }

    /// What becomes of the request.
    package struct Verdict: Sendable, Equatable {
        package let retry: Retry
        package let blame: Blame
        /// What the client is told when it is not placed again.
        package let answer: ErrorCode
    }

    /// What a failure comes to.
    package static func verdict(_ code: ErrorCode, at place: Place, in phase: Phase) -> Verdict {
        guard place != .gateway else { return Verdict(retry: .never, blame: .nobody, answer: code) }
        guard phase != .timeUp else { return Verdict(retry: .never, blame: .nobody, answer: .deadlineExceeded) }
        switch code {
        case .notAccepted: return Verdict(retry: .limited, blame: .nobody, answer: .unavailable)
        case .unavailable, .cancelled, .deadlineExceeded, .retryBudgetSpent:
            return Verdict(retry: .limited, blame: lost(place), answer: .unavailable)
        case .invalidArgument, .limitExceeded:
            // The request may be one that every instance refuses, which says nothing about this one.
            return Verdict(retry: .once, blame: .nobody, answer: .internal)
        case .unauthenticated, .mismatch, .internal, .unknownMethod:
            return Verdict(retry: .once, blame: place == .handOff ? .prefill : .called, answer: .internal)
        }
    }

    /// Experts and samplers serve many instances: that one of these cannot reach them is told by its `status`.
    private static func lost(_ place: Place) -> Blame {
        switch place {
        case .instance: .called
        case .handOff: .prefill
        case .gateway, .experts, .sampler: .nobody
        }
    }
}

extension FaultTable.Place {
    /// Where an instance says that a call to it failed.
    init(_ link: FailedLink) {
        self =
            switch link {
            case .own: .instance
            case .experts: .experts
            case .sampler: .sampler
            case .handOff: .handOff
            }
    }
}
