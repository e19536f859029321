import DeploymentModel
import Foundation
import Testing

struct CostParametersTests {
    @Test func everyNumberSaysWhereItComesFrom() {
        let costs = CostParameters.default
        for name in CostParameters.Name.allCases {
            let entry = costs[entry: name]
            #expect(entry.source.count > 10 && !entry.unit.isEmpty, "\(name.rawValue)")
            #expect((entry.low...entry.high).contains(entry.value), "\(name.rawValue)")
        }
        let fitted = CostParameters.Name.allCases.filter { costs[entry: $0].provenance == .calibrated }
        #expect(fitted == [.host, .referenceEfficiency])
    }

    @Test func readingWhatWasWrittenGivesTheSame() throws {
        let costs = CostParameters.default
        #expect(try CostParameters(json: costs.json()) == costs)
        #expect(costs.json() == CostParameters.default.json())
    }

    @Test func brokenFilesAreRefusedByName() throws {
        func refusal(_ change: (inout [String: [String: Any]]) -> Void) throws -> String {
            var file = try #require(
                try JSONSerialization.jsonObject(with: CostParameters.default.json()) as? [String: [String: Any]])
            change(&file)
            let data = try JSONSerialization.data(withJSONObject: file)
            return #expect(throws: DeploymentError.self) { try CostParameters(json: data) }?.description ?? ""
        }
        let host = "host_milliseconds_per_step"
        #expect(try refusal { $0[host] = nil }.contains(host))
        #expect(try refusal { $0[host]?["value"] = 99 }.contains(host))
        #expect(try refusal { $0[host]?["low"] = 0 }.contains("above 0"))
        #expect(try refusal { $0["another"] = $0[host] }.contains("another"))
        #expect(throws: DeploymentError.self) { try CostParameters(json: Data("[]".utf8)) }
    }
}
