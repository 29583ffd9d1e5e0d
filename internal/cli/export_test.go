package cli

// Findings are for the test that causes each of them.
var Findings = findings
