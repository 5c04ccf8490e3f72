//! Without a controller: help, validation, exit statuses.

/// Transcripts, one a file: what is typed, what is printed, with which exit status.
#[test]
fn transcripts() {
    trycmd::TestCases::new()
        .case("tests/cli/transcripts/*.md")
        .env("NO_COLOR", "1")
        .env("ROADSTEAD_ENDPOINT", "unix:/nonexistent/roadstead.sock");
}
