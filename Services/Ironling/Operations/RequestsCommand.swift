import EventLoop
import Foundation
import Observability
import ServiceSupport

/// `ironling requests`: what services are at work on, those first that have been longest in their phase.
enum RequestsCommand {
    static let options = CommandLineOptions(
        program: "ironling requests",
        summary: "Lists the requests that services are at work on: in which phase each is, and for how long.",
        options: [
            OperationsClient.option,
            CommandLineOption("older-than", value: "SEC", help: "only those so long in their phase", fallback: "0"),
            CommandLineOption("json", help: "print what the services answer, as a JSON array"),
        ])

    private struct Report: Decodable {
        struct Item: Decodable {
            let request: String
            let trace: String
            let phase: String
            let phase_seconds: Double
            let age_seconds: Double
            let idle_seconds: Double
            let prompt_tokens: Int
            let tokens: Int
            let instance: String
        }

        let instance: String
        let count: Int
        let requests: [Item]
    }

    static func run(_ values: OptionValues, _ loop: UVLoop) async throws {
        let least = try values.number("older-than", in: 0...1e9)
        let client = OperationsClient(try OperationsClient.addresses(try values.required("services")), loop: loop)
        defer { client.close() }
        let answers = try await client.get("/debug/requests")
        if values.isOn("json") {
            return print("[" + answers.map { String(decoding: $0.body, as: UTF8.self) }.joined(separator: ",") + "]")
        }
        for answer in answers {
            guard let report = try? JSONDecoder().decode(Report.self, from: Data(answer.body)) else {
                throw StartError("\(answer.address) answers /debug/requests with something else")
            }
            let shown = report.requests.filter { $0.phase_seconds >= least }
            guard report.count > 0 else { continue }
            print("\(report.instance): \(report.count) requests" + (shown.isEmpty ? ", none so old" : ""))
            for item in shown { print(line(item)) }
        }
    }

    private static func line(_ item: Report.Item) -> String {
        func seconds(_ value: Double) -> String { String(format: "%9.3f s", value) }
        let phase = item.phase.padding(toLength: 18, withPad: " ", startingAt: 0)
        let place = item.instance.isEmpty ? "" : "  at \(item.instance)"
        return "  \(phase)\(seconds(item.phase_seconds))  age\(seconds(item.age_seconds))  no token for"
            + "\(seconds(item.idle_seconds))  \(item.prompt_tokens)+\(item.tokens) tokens  "
            + "\(item.request.isEmpty ? item.trace : item.request)\(place)"
    }
}
