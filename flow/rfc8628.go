// # Conformance to RFC 8628
//
// The table has the rules of the device authorization grant that are the
// client's, in our own words, and the tests that prove them: subtests of
// TestRFC8628 in this package, and scripts of TestScripts in internal/cli where
// a rule is about what people see. TestRFC8628Table keeps the table and the tests
// together.
//
// Without a row are the rules of the provider: how long and random codes are
// (sections 5.1, 5.2 and 6.1), the page at which they are entered (3.3 and 5.4),
// and limits on guesses (5.1); whom a device may be trusted by (5.3); and ways
// to show a code that are not text (5.7), which this program has none of.
//
//	3.1   | the request is a POST of a form with client_id, and scope where one is wanted | 3.1 form-encoded POST with client_id and scope
//	3.1   | a client with credentials authenticates, in the way that discovery names      | 3.1 client authentication with client_secret_basic
//	3.1   |                                                                               | 3.1 client authentication with client_secret_post
//	3.1   | no parameter is sent twice or without a value                                 | 3.1 no parameter twice and none without a value
//	3.1   |                                                                               | TestScripts/rfc8628
//	3.1   | further parameters are the caller's, repeated where RFC 8707 allows it        | 3.1 extra parameters
//	3.1   | every request goes over TLS, but for loopback addresses                       | 3.1 no request without TLS: endpoints of discovery
//	3.1   |                                                                               | 3.1 no request without TLS: endpoints of the configuration
//	3.1   |                                                                               | 3.1 no request without TLS: the issuer of the configuration
//	3.1   |                                                                               | 3.1 no request without TLS: redirects
//	3.1   |                                                                               | TestScripts/rfc8628
//	3.1   |                                                                               | TestScripts/usage
//	3.1   | a login begins because a person wants it, not because the last one ended      | 3.1 one request for one login
//	3.1   |                                                                               | TestScripts/rfc8628
//	3.1   |                                                                               | TestScripts/login-fails
//	3.2   | device_code, user_code and verification_uri must be there                     | 3.2 device_code is required
//	3.2   |                                                                               | 3.2 user_code is required
//	3.2   |                                                                               | 3.2 verification_uri is required
//	3.2   | expires_in must be there; a provider that leaves it out is borne with         | 3.2 expires_in is required: five minutes where it is missing
//	3.2   |                                                                               | 3.2 expires_in is required, but may come as text
//	3.2   | verification_uri_complete may be missing                                      | 3.2 verification_uri_complete is optional
//	3.2   | what is not known in an answer is ignored (RFC 6749 section 5.1)              | 3.2 unknown fields are ignored
//	3.2   | between polls lies the interval, and 5 s where there is none                  | 3.2 no interval means 5 s, and the first poll waits for it
//	3.2   |                                                                               | 3.2 the interval is kept
//	3.2   |                                                                               | 3.2 an interval that is no number means 5 s
//	3.3   | the person gets the code and the address, and is told to go there             | 3.3 the user code is given as it came
//	3.3   |                                                                               | 3.3 the verification URI is given as it came
//	3.3   |                                                                               | TestScripts/rfc8628
//	3.3   |                                                                               | TestScripts/get-token
//	3.3   | nobody is sent to an address that is not safe to open                         | 3.3 a verification URI that is not safe to open ends it
//	3.3   | the device code is for the provider's eyes only                               | 3.3 the device code is in no printed form
//	3.3   |                                                                               | 3.3 the device code is in no printed copy
//	3.3   |                                                                               | TestScripts/rfc8628
//	3.3.1 | beside the complete link the code is still shown, to be compared              | 3.3.1 the complete link comes beside the code
//	3.3.1 |                                                                               | 3.3.1 a complete link does not stand in for the code
//	3.3.1 |                                                                               | TestScripts/rfc8628
//	3.3.1 | the complete link is a comfort: the login works without it                    | 3.3.1 a complete link that is not safe is left out
//	3.4   | the request is a POST of a form with grant_type, device_code and client_id    | 3.4 grant_type, device_code and client_id
//	3.4   |                                                                               | 3.4 the device code is sent as it came
//	3.4   | a client with credentials authenticates at each poll                          | 3.4 client authentication with client_secret_basic at each poll
//	3.4   |                                                                               | 3.4 client authentication with client_secret_post at each poll
//	3.5   | authorization_pending: go on                                                  | 3.5 authorization_pending goes on at the interval
//	3.5   | slow_down: go on, 5 s slower now and ever after                               | 3.5 slow_down adds 5 s for good
//	3.5   |                                                                               | 3.5 slow_down outlasts trouble on the network
//	3.5   |                                                                               | 3.5 slow_down with any HTTP status
//	3.5   | no poll comes sooner than the interval, counted from the answer before        | 3.5 a provider that insists on the interval never has to say slow_down
//	3.5   |                                                                               | 3.5 a slow answer does not bring the next poll closer
//	3.5   |                                                                               | 3.5 never two polls at once
//	3.5   | access_denied and expired_token: stop                                         | 3.5 access_denied ends it
//	3.5   |                                                                               | 3.5 expired_token ends it
//	3.5   |                                                                               | TestScripts/rfc8628
//	3.5   | any other error: stop, and say which                                          | 3.5 any other error ends it
//	3.5   |                                                                               | TestScripts/provider
//	3.5   | an answer with tokens ends it                                                 | 3.5 no poll after the token
//	3.5   |                                                                               | 3.5 no poll after a token that is refused
//	3.5   | no polls beyond the life of the code                                          | 3.5 the code's lifetime is a hard end
//	3.5   |                                                                               | 3.5 a hanging answer does not outlive the code
//	3.5   | a connection that times out: back off, by doubling                            | 3.5 back-off after a connection that fails, then the interval again
//	3.5   |                                                                               | 3.5 back-off after a connection that times out
//	3.5   |                                                                               | 3.5 back-off where the interval is long
//	3.5   |                                                                               | TestScripts/network
//	5.1   | entering and guessing user codes is not the client's                          | 5.1 no user code is ever sent
//	5.2   | nor is guessing device codes                                                  | 5.2 only the device code that was given is sent
//	5.4   | a code from a stranger must not be approved: the person is told               | 5.4 the login is that of whoever asked for it
//	5.4   |                                                                               | TestScripts/rfc8628
//	5.4   |                                                                               | TestScripts/get-token
//	5.5   | others may see the prompt: it holds nothing that gives them tokens            | 5.5 what is shown is of no use without an approval
//	5.6   | a client that cannot keep a secret does without one                           | 5.6 a public client sends no secret
//	5.6   |                                                                               | 5.6 a secret goes to the provider alone
//	6.1   | case and dashes of the user code are presentation, and the provider's choice  | 6.1 case and dashes of the user code are left to the provider
package flow
