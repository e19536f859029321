import Observability
import Testing

@Suite struct LoggerTests {
    private func record(_ message: String, _ fields: KeyValuePairs<String, LogValue>) throws -> LogRecord {
        let log = MemoryLog()
        Logger(service: "gateway", backend: log, clock: { 1_769_847_300_250 }).info(message, fields)
        return try #require(log.records.first)
    }

    @Test func aLineNamesTimeLevelServiceMessageAndFields() throws {
        let record = try record("listening", ["port": 8000, "peer": "a b", "ok": true, "load": 0.5, "none": ""])
        #expect(
            record.line
                == #"2026-01-31T08:15:00.250Z info gateway "listening" port=8000 peer="a b" ok=true load=0.5 none="""#)
        #expect(record["port"] == 8000 && record["nothing"] == nil)
    }

    @Test(arguments: [
        (0 as Int64, "1970-01-01T00:00:00.000Z"), (951_827_696_789, "2000-02-29T12:34:56.789Z"),
        (-1, "1969-12-31T23:59:59.999Z"), (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
    ])
    func datesAreThoseOfTheCalendar(time: Int64, text: String) {
        let log = MemoryLog()
        Logger(service: "s", backend: log, clock: { time }).error("x")
        #expect(log.records.first?.line.hasPrefix(text + " error") == true)
    }

    @Test func nothingBreaksOutOfALine() throws {
        let line = try record("a\nb\u{1B}[31m\"", ["k=\n": "x=1 y=2", "é": "\u{202E}\\", "": "\r\n"]).line
        #expect(line.hasSuffix(#""a\nb\u{1b}[31m\"" k__="x=1 y=2" _="\u{202e}\\" _="\r\n""#))
        #expect(!line.utf8.contains(10))
    }

    @Test func longLinesAreCutBetweenCharacters() throws {
        for length in 4080..<4100 {
            let line = try record(String(repeating: "é", count: length), ["more": 1]).line
            #expect(line.utf8.count < LogRecord.maximumLineBytes && line.hasSuffix("é…"))
        }
        #expect(try record("x", ["k": .string(String(repeating: "y", count: 100_000))]).line.hasSuffix("y…"))
    }

    @Test func levelsBelowTheLeastAreNotEvenMade() {
        let log = MemoryLog()
        let logger = Logger(service: "s", minimumLevel: .warning, backend: log).adding(["id": 1])
        func costly() -> String {
            Issue.record("the message was made")
            return ""
        }
        logger.debug(costly())
        logger.info(costly())
        logger.warning("one", ["id": 2])
        logger.error("two")
        #expect(log.records.map(\.message) == ["one", "two"])
        #expect(log.records.map { $0["id"] } == [2, 1])
        #expect(LogLevel.allCases.sorted() == [.debug, .info, .warning, .error])
    }
}
