import GatewayCore
import GatewayService
import RPC
import Testing
import WireProtocol

/// Error code × where it was met × how far the request was: who is blamed, whether it is placed again, and what a client
/// may see.
@Suite struct FaultTableTests {
    private struct Cell: CustomStringConvertible {
        let code: ErrorCode
        let place: FaultTable.Place
        let phase: FaultTable.Phase
        var verdict: FaultTable.Verdict { FaultTable.verdict(code, at: place, in: phase) }
        /// What an HTTP client is answered when the request is not placed again.
        var status: Int { APIError(RPCError(verdict.answer, "x")).status }
        var description: String { "\(code) at \(place) in \(phase): \(verdict), \(status)" }
    }

    private static let cells = ErrorCode.allCases.flatMap { code in
        FaultTable.Place.allCases.flatMap { place in
            FaultTable.Phase.allCases.map { Cell(code: code, place: place, phase: $0) }
        }
    }
    private static let elsewhere = cells.filter { $0.place != .gateway }

    /// The table of SPECIFICATION section 6: the code that is met, and what it comes to while time is left.
    private static let rows: [ErrorCode: (retry: FaultTable.Retry, answer: ErrorCode, status: Int)] = [
        .notAccepted: (.limited, .unavailable, 503), .unavailable: (.limited, .unavailable, 503),
        .cancelled: (.limited, .unavailable, 503), .deadlineExceeded: (.limited, .unavailable, 503),
        .retryBudgetSpent: (.limited, .unavailable, 503), .invalidArgument: (.once, .internal, 500),
        .limitExceeded: (.once, .internal, 500), .unauthenticated: (.once, .internal, 500),
        .mismatch: (.once, .internal, 500), .internal: (.once, .internal, 500), .unknownMethod: (.once, .internal, 500),
    ]

    @Test func everyCellIsDecided() throws {
        #expect(Self.cells.count == 11 * 5 * 3)
        for cell in Self.elsewhere where cell.phase != .timeUp {
            let row = try #require(Self.rows[cell.code])
            #expect(cell.verdict.retry == row.retry && cell.verdict.answer == row.answer, "\(cell)")
            #expect(cell.status == row.status, "\(cell)")
        }
    }

    @Test func nothingAnotherServiceSaysBecomesTheClientsFault() {
        for cell in Self.elsewhere { #expect(cell.status >= 500, "\(cell)") }
    }

    @Test func whatTheGatewayRefusesIsSaidAsItIsAndNotTriedAgain() {
        let statuses: [ErrorCode: Int] = [
            .invalidArgument: 400, .limitExceeded: 400, .notAccepted: 429, .deadlineExceeded: 504, .unavailable: 503,
            .cancelled: 503, .retryBudgetSpent: 503,
        ]
        for cell in Self.cells where cell.place == .gateway {
            #expect(cell.verdict == FaultTable.verdict(cell.code, at: .gateway, in: .prompt), "\(cell)")
            #expect(cell.verdict.retry == .never && cell.verdict.blame == .nobody, "\(cell)")
            #expect(cell.status == statuses[cell.code] ?? 500, "\(cell)")
        }
    }

    @Test func aRequestWhoseTimeIsUpIsNotPlacedAgainAndBlamesNobody() {
        for cell in Self.elsewhere where cell.phase == .timeUp {
            #expect(cell.verdict.retry == .never && cell.verdict.blame == .nobody && cell.status == 504, "\(cell)")
        }
    }

    @Test func whoFailedIsBlamedAndNobodyElse() {
        for cell in Self.elsewhere where cell.phase != .timeUp {
            let expected: FaultTable.Blame
            switch (cell.code, cell.place) {
            case (.notAccepted, _), (.invalidArgument, _), (.limitExceeded, _): expected = .nobody
            case (_, .handOff): expected = .prefill
            case (.unavailable, .experts), (.unavailable, .sampler), (.cancelled, .experts), (.cancelled, .sampler),
                (.deadlineExceeded, .experts), (.deadlineExceeded, .sampler), (.retryBudgetSpent, .experts),
                (.retryBudgetSpent, .sampler):
                expected = .nobody
            default: expected = .called
            }
            #expect(cell.verdict.blame == expected, "\(cell)")
        }
    }

    /// Tokens that were passed on are no reason to give a stream up: it goes on from them.
    @Test func aStreamThatHasBegunIsTreatedAsOneThatHasNot() {
        for cell in Self.elsewhere where cell.phase == .tokens {
            #expect(cell.verdict == FaultTable.verdict(cell.code, at: cell.place, in: .prompt), "\(cell)")
        }
    }
}
