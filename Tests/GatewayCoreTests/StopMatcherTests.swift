import GatewayCore
import Testing
import Tokenization

@Suite struct StopMatcherTests {
    private struct Outcome: Equatable {
        var text: String
        var stopped: Bool
    }

    /// All text that may be shown, and whether a stop string was met.
    private func run(_ pieces: [String], _ stops: [String], minimum: Int = 0) -> Outcome {
        var matcher = StopMatcher(stops: stops, minimumTokens: minimum)
        var text = ""
        for piece in pieces {
            let step = matcher.append(piece)
            text += step.text
            if step.stopped { return Outcome(text: text, stopped: true) }
        }
        return Outcome(text: text + matcher.flush(), stopped: false)
    }

    @Test func everyCutOfATextStopsAtTheSamePlace() {
        let text = "aab🙂 END rest"
        let characters = text.map { String($0) }
        for stops in [["END"], ["🙂"], ["ab"], ["b", "ab🙂"], ["rest", "END"], ["nothing"], ["aaab", "aab"]] {
            let whole = run([text], stops)
            for mask in 0..<(1 << (characters.count - 1)) {
                var pieces = [""]
                for (index, character) in characters.enumerated() {
                    pieces[pieces.count - 1] += character
                    if mask >> index & 1 == 1 { pieces.append("") }
                }
                let cut = run(pieces, stops)
                if cut != whole { Issue.record("\(stops) cut as \(pieces): \(cut)") }
            }
        }
    }

    /// Tokens of single bytes, as a byte-level tokenizer may give them.
    @Test func charactersSplitOverTokensStopTheStream() {
        for (text, stop, wanted) in [("née🙂x", "🙂", "née"), ("語言", "言", "語"), ("abc", "é", "abc")] {
            var detokenizer = IncrementalDetokenizer(ByteTokenizer())
            var pieces = text.utf8.map { detokenizer.append(UInt32($0)) ?? "" }
            pieces.append(detokenizer.flush())
            #expect(run(pieces, [stop]) == Outcome(text: wanted, stopped: text.contains(stop)))
        }
    }

    @Test func aStringThatMightBeginIsHeldBackAndComesOutInTheEnd() {
        var matcher = StopMatcher(stops: ["</s>"])
        #expect(matcher.append("a</").text == "a")
        #expect(matcher.append("s").text == "")
        #expect(matcher.append("x").text == "</sx")
        #expect(matcher.append("<").text == "")
        #expect(matcher.flush() == "<")
    }

    @Test func theFirstTokensAreNotSearched() {
        #expect(run(["END", "b", "END", "c"], ["END"], minimum: 2) == Outcome(text: "ENDb", stopped: true))
        #expect(run(["END", "b"], ["END"], minimum: 2) == Outcome(text: "ENDb", stopped: false))
    }
}
