import Foundation
import LoadTesting
import Testing

/// Data sets as others publish them: what can be used is, and the rest is counted.
struct OddRowTests {
    private static func conversations(_ text: String, count: Int = 3) throws -> ConversationWorkload {
        try ConversationWorkload(
            parsing: Data(text.utf8), count: count, outputTokens: nil, inputLimit: 100, seed: 1,
            measure: ConversationWorkload.estimate)
    }

    private static let turns = #"[{"from": "human", "value": "Who wrote Emma?"}, {"from": "gpt", "value": "Austen."}]"#

    @Test(arguments: [
        ("null", "is no object"), ("3", "is no object"), ("{}", "neither conversations nor messages"),
        (#"{"conversations": "x"}"#, "no list"), (#"{"conversations": [1, 2]}"#, "no object"),
        (#"{"conversations": []}"#, "no question"),
        (#"{"conversations": [{"from": "human", "value": null}, {"from": "gpt", "value": "y"}]}"#, "no text"),
        (#"{"conversations": [{"from": "human", "value": ""}, {"from": "gpt", "value": "y"}]}"#, "empty question"),
        (#"{"conversations": [{"from": "human", "value": "x"}]}"#, "no answer"),
        (#"{"conversations": [{"from": "human", "value": "x"}, {"from": "human", "value": "x"}]}"#, "no answer"),
        (#"{"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": 7}]}"#, "an answer"),
        (#"{"messages": [{"role": "system", "content": "x"}]}"#, "no question"),
    ])
    func anOddRowIsLeftOut(row: String, word: String) throws {
        let good = "{\"conversations\": \(Self.turns)}"
        for text in ["[\(good), \(row), \(good)]", "\(good)\n\(row)\n\n\(good)\r\n"] {
            let workload = try Self.conversations(text, count: 2)
            #expect(workload.request(at: 0).prompt == .text("Who wrote Emma?"))
            #expect(workload.notices.count == 1, "\(workload.notices)")
            #expect(workload.notices[0].hasPrefix("left out 1 of 3 rows: 1 "), "\(workload.notices)")
            #expect(
                workload.notices[0].contains(word) && workload.notices[0].contains("(row 2)"), "\(workload.notices)")
        }
    }

    @Test(arguments: [
        #"[{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}]"#,
        #"{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}"#,
        #"{"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, {"role": "assistant", "content": "A"}]}"#,
        #"[{"conversations": [{"from": "gpt", "value": "Hi"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}]"#,
        "\u{FEFF}[{\"conversations\": [{\"from\": \"user\", \"value\": \"Q\"}, {\"from\": \"chatgpt\", \"value\": \"A\"}]}]",
        #"{"id": 1, "conversations": [{"value": "Q"}, {"value": "A"}]}"# + "\n",
    ])
    func everyFormOfAConversationIsRead(text: String) throws {
        let workload = try Self.conversations(text, count: 1)
        #expect(workload.request(at: 0).prompt == .text("Q") && workload.notices.isEmpty)
    }

    @Test func fewerConversationsThanRequestsAreRepeatedAndThatIsSaid() throws {
        let workload = try Self.conversations("[{\"conversations\": \(Self.turns)}]", count: 5)
        #expect(workload.count == 5 && workload.notices == ["1 conversations are repeated to make 5 requests"])
    }

    @Test func aFileOfNothingUsableSaysWhy() {
        for text in ["[", "[1, 2", "no json", "[null, null]", ""] {
            #expect(throws: LoadError.self) { try Self.conversations(text) }
        }
    }

    @Test func manyReasonsStayOneLine() throws {
        let rows = (0..<1000).map {
            "{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [\($0), 1]}"
        }
        let good = "{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 1}"
        let odd = (0..<50).map { "{\"timestamp\": {\"a\($0)\": 1}}" } + (0..<50).map { "{\"x\($0)\"" }
        let text = (rows + odd + [good]).joined(separator: "\n")
        let workload = try TraceWorkload(parsing: Data(text.utf8), limit: 1, idsBelow: 9, seed: 1)
        #expect(workload.notices[0].hasPrefix("left out 1100 of 1101 lines: 1000 "), "\(workload.notices)")
        #expect(workload.notices[0].utf8.count < 1000)
    }

    private static func trace(_ lines: [String], limit: Int = 10) throws -> TraceWorkload {
        try TraceWorkload(parsing: Data(lines.joined(separator: "\n").utf8), limit: limit, idsBelow: 900, seed: 1)
    }

    private static func line(_ timestamp: String, _ more: String = "") -> String {
        "{\"timestamp\": \(timestamp), \"input_length\": 40, \"output_length\": 5\(more)}"
    }

    @Test(arguments: [
        (["0", "50"], 0), (["27482", "27532"], 0), (["1796000000000", "1796000000050"], 0),
        (["1796000000.00", "1796000000.05"], 1), (["1796000000000000", "1796000000050000"], 1),
        (["1796000000000000000", "1796000000050000000"], 1),
    ])
    func theFirstRequestIsDueAtOnceWhateverTheClock(times: [String], notices: Int) throws {
        let workload = try Self.trace(times.map { Self.line($0) }, limit: 2)
        let due = try #require(workload.dueTimes)
        #expect(due[0] == 0 && (49_900...50_100).contains(due[1]), "\(due)")
        #expect(workload.notices.count == notices, "\(workload.notices)")
    }

    @Test func aBlockMayHaveAnyNumberOf64Bits() throws {
        let ids = ["18446744073709551615", "9223372036854775808", "-1", "-9223372036854775808", "7", "\"0xcafe\""]
        let workload = try Self.trace(ids.map { Self.line("1", ", \"hash_ids\": [\($0)]") }, limit: ids.count)
        #expect(workload.count == ids.count && workload.notices.isEmpty, "\(workload.notices)")
        func tokens(_ index: Int) -> PlannedRequest.Prompt { workload.request(at: index).prompt }
        #expect(tokens(0) == tokens(2) && tokens(1) == tokens(3) && tokens(0) != tokens(1) && tokens(4) != tokens(5))
        let odd = try Self.trace([Self.line("1"), Self.line("1", ", \"hash_ids\": [1.5]")], limit: 1)
        #expect(odd.count == 1)
    }

    @Test func linesOutOfOrderAreSortedAndThoseOfAnotherClockLeftOut() throws {
        let workload = try Self.trace(["1000", "3000", "2000", "1796000000000"].map { Self.line($0) }, limit: 4)
        #expect(workload.dueTimes == [0, 1_000_000, 2_000_000])
        #expect(workload.notices.contains { $0.contains("100 days") && $0.contains("(line 4)") })
        #expect(workload.notices.contains { $0.contains("1 lines were earlier") })
        #expect(workload.notices.contains { $0.contains("3 requests, fewer than the 4") })
    }
}
