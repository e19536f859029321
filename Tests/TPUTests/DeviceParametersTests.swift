import Foundation
import TPU
import Testing

@Suite struct DeviceParametersTests {
    @Test func theFileSurvivesARoundTrip() throws {
        let parameters = DeviceParameters.default
        #expect(try DeviceParameters(json: parameters.json()) == parameters)
        #expect(parameters.json() == parameters.json())
    }

    @Test func atMostSixAreFitted() {
        let fitted = DeviceParameters.Name.allCases.filter { DeviceParameters.default[entry: $0].fitted }
        #expect(fitted.count <= 6)
    }

    @Test func brokenFilesAreRefusedByName() throws {
        var file = try #require(
            JSONSerialization.jsonObject(with: DeviceParameters.default.json()) as? [String: [String: Any]])
        func error(_ file: [String: [String: Any]]) throws -> String {
            let data = try JSONSerialization.data(withJSONObject: file)
            return #expect(throws: DeviceError.self) { try DeviceParameters(json: data) }?.description ?? ""
        }
        file["link_gigabytes_per_second"]?["value"] = 1e9
        #expect(try error(file).contains("link_gigabytes_per_second"))
        file["link_gigabytes_per_second"] = nil
        #expect(try error(file).contains("has no \"link_gigabytes_per_second\""))
        #expect(throws: DeviceError.self) { try DeviceParameters(json: Data("[]".utf8)) }
    }
}
