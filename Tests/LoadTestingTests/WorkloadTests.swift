import Foundation
import LoadTesting
import Testing

struct WorkloadTests {
    private func tokens(_ request: PlannedRequest) -> [UInt32] {
        guard case .tokens(let ids) = request.prompt else { return [] }
        return ids
    }

    private func random(_ count: Int, seed: UInt64) -> RandomWorkload {
        RandomWorkload(
            count: count, content: .ids(below: 256), input: LengthRange(40, ratio: 0.25),
            output: LengthRange(20, ratio: 0.5), seed: seed)
    }

    @Test func randomRequestsRepeatBySeedWhateverTheirNumber() {
        let (few, many, other) = (random(5, seed: 7), random(500, seed: 7), random(5, seed: 8))
        for index in 0..<5 {
            #expect(few.request(at: index) == many.request(at: index))
            #expect(few.request(at: index) != other.request(at: index))
        }
        let all = (0..<500).map { many.request(at: $0) }
        #expect(Set(all.map(\.inputTokens)) == Set(10...40) && Set(all.map(\.outputTokens)) == Set(10...20))
        #expect(all.allSatisfy { tokens($0).count == $0.inputTokens && tokens($0).allSatisfy { $0 < 256 } })
    }

    @Test func textPromptsAreCutByTheCaller() {
        let workload = RandomWorkload(
            count: 2, content: .text { text, count in "\(text.split(separator: " ").count)/\(count)" },
            input: LengthRange(12), output: LengthRange(3), seed: 1)
        #expect(workload.request(at: 1) == PlannedRequest(prompt: .text("12/12"), inputTokens: 12, outputTokens: 3))
    }

    @Test func groupsShareTheirPrefixAndNothingElse() {
        let workload = SharedPrefixWorkload(
            groupCount: 3, perGroup: 4, prefixTokens: 50, questionTokens: 10, outputTokens: 5, idsBelow: 1000, seed: 3)
        let prompts = (0..<workload.count).map { tokens(workload.request(at: $0)) }
        let groups = Dictionary(grouping: prompts) { $0.prefix(50) }
        #expect(groups.count == 3 && groups.values.allSatisfy { $0.count == 4 })
        #expect(Set(prompts.map { $0.suffix(10) }).count == 12)
    }

    @Test func everyTurnBeginsWithAllThatWasSaidBefore() {
        let workload = TurnsWorkload(
            conversations: 3, turns: 4, firstTokens: 50, questionTokens: 10, outputTokens: 5, idsBelow: 1000, seed: 3)
        let prompts = (0..<workload.count).map { tokens(workload.request(at: $0)) }
        #expect(prompts.map(\.count) == [50, 50, 50, 65, 65, 65, 80, 80, 80, 95, 95, 95])
        for index in 3..<12 { #expect(prompts[index].starts(with: prompts[index - 3])) }
        #expect(Set(prompts[..<3]).count == 3)
        #expect((0..<12).allSatisfy { workload.lengths(at: $0).input == prompts[$0].count })
    }

    @Test func aTracesEqualBlocksAreEqualTokens() throws {
        let trace = """
            {"timestamp": 1000, "input_length": 1100, "output_length": 7, "hash_ids": [1, 2, 3]}

            {"timestamp": 1500.5, "input_length": 600, "output_length": 1, "hash_ids": [1, 9]}
            {"timestamp": 1500.5, "input_length": 30, "output_length": 2}
            """
        let workload = try TraceWorkload(parsing: Data(trace.utf8), limit: 10, slowdown: 2, idsBelow: 5000, seed: 1)
        #expect(workload.dueTimes == [0, 1_001_000, 1_001_000])
        let prompts = (0..<3).map { tokens(workload.request(at: $0)) }
        #expect(prompts.map(\.count) == [1100, 600, 30])
        #expect(prompts[0].prefix(512) == prompts[1].prefix(512) && prompts[0][512..<600] != prompts[1][512...])
        let small = try TraceWorkload(parsing: Data(trace.utf8), limit: 2, lengthScale: 0.01, idsBelow: 9, seed: 1)
        #expect(small.count == 2 && small.request(at: 0).inputTokens == 11 && small.request(at: 1).outputTokens == 1)
        #expect(tokens(small.request(at: 0)).prefix(5) == tokens(small.request(at: 1)).prefix(5))
    }

    @Test(arguments: [
        ("{\"timestamp\": 1, \"output_length\": 1}", "input_length is missing"),
        ("{\"timestamp\": 1, \"input_length\": \"5\", \"output_length\": 1}", "input_length"),
        ("{\"timestamp\": 1, \"input_length\": 1.5, \"output_length\": 1}", "input_length"),
        ("{\"timestamp\": 1, \"input_length\": 0, \"output_length\": 1}", "input_length"),
        ("{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 262145}", "output_length"),
        ("{\"timestamp\": 1, \"input_length\": 99999999999999999999, \"output_length\": 1}", "input_length"),
        ("{\"timestamp\": -1, \"input_length\": 5, \"output_length\": 1}", "timestamp"),
        ("{\"timestamp\": 1e300, \"input_length\": 5, \"output_length\": 1}", "timestamp"),
        ("{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1, 2]}", "hash_ids"),
        ("{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1.5]}", "hash_ids"),
        ("[1]", "wrong type"), ("{", "JSON"), ("\u{0}", "JSON"), ("{} {}", "JSON"), ("null", "line 3"),
    ]) func aHostileLineIsLeftOutAndNamed(line: String, word: String) throws {
        let good = "{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 1}\r"
        let text = Data("\(good)\n\n\(line)\n\(good)".utf8)
        let workload = try TraceWorkload(parsing: text, limit: 2, idsBelow: 9, seed: 1)
        #expect(workload.count == 2 && workload.notices.count == 1, "\(workload.notices)")
        let notice = workload.notices.first ?? ""
        #expect(notice.hasPrefix("left out 1 of 3 lines: 1 ") && notice.contains("(line 3)"), "\(notice)")
        #expect(notice.contains(word), "\(notice)")
        #expect(throws: LoadError.self) {
            try TraceWorkload(parsing: Data(line.utf8), limit: 10, idsBelow: 9, seed: 1)
        }
    }

    @Test func anEmptyTraceIsRefused() {
        for text in ["", "\n \n"] {
            #expect(throws: LoadError("the trace has no lines")) {
                try TraceWorkload(parsing: Data(text.utf8), limit: 10, idsBelow: 9, seed: 1)
            }
        }
    }

    @Test func conversationsGiveQuestionsAndAnswerLengths() throws {
        let file = """
            [{"id": "a", "conversations": [{"from": "human", "value": "one two"}, {"from": "gpt", "value": "a b c"}]},
             {"conversations": [{"from": "human", "value": "alone"}]}, {"id": "none"},
             {"conversations": [{"value": "far too long a question"}, {"value": "x"}]}]
            """
        let workload = try ConversationWorkload(
            parsing: Data(file.utf8), count: 3, outputTokens: nil, inputLimit: 3, seed: 1
        ) { $0.split(separator: " ").count }
        #expect(workload.count == 3)
        #expect(workload.request(at: 2) == PlannedRequest(prompt: .text("one two"), inputTokens: 2, outputTokens: 3))
        for (bad, word) in [("{}", "conversations"), ("[{\"conversations\": 3}]", "conversations"), ("[]", "0")] {
            #expect {
                try ConversationWorkload(
                    parsing: Data(bad.utf8), count: 1, outputTokens: nil, inputLimit: 3, seed: 1,
                    measure: ConversationWorkload.estimate)
            } throws: { "\($0)".contains(word) }
        }
    }

    @Test func cancellationsAreAsManyAsAskedForAndInTheMiddle() {
        let plan = CancellationPlan(rate: 0.3, seed: 5)
        let counts = (0..<10_000).map { plan.tokens(index: $0, outputTokens: 10) }
        #expect(abs(Double(counts.compactMap { $0 }.count) / 10_000 - 0.3) < 0.02)
        #expect(Set(counts.compactMap { $0 }) == Set(1...9))
        #expect(counts == (0..<10_000).map { plan.tokens(index: $0, outputTokens: 10) })
        #expect(plan.tokens(index: 0, outputTokens: 1) == nil)
        #expect(CancellationPlan(rate: 0, seed: 5).tokens(index: 0, outputTokens: 10) == nil)
    }
}
