package flow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds an answer; those of the providers have some kilobytes.
const maxAnswer = 1 << 20

// limitedClient follows no redirect of a POST, for it would carry secrets to
// wherever it leads, and those of a GET only to where CheckURL allows.
func limitedClient(base *http.Client) *http.Client {
	c := http.Client{Timeout: 30 * time.Second}
	if base != nil {
		c = *base
	}
	c.Jar = nil
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if via[0].Method != http.MethodGet || len(via) > 3 || CheckURL(req.URL.String()) != nil {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return &c
}

// post sends a form with the client's authentication and reads a JSON object
// into answer, which may be nil. It gives a *ProviderError for any answer with
// an error code, whatever its HTTP status: GitHub sends 200, Google 428.
func (c *Client) post(ctx context.Context, endpoint string, form url.Values, answer any) error {
	basic := ""
	secrets := []string{form.Get("device_code"), form.Get("refresh_token"), form.Get("token"), form.Get("code_verifier")}
	if c.config.ClientSecret != nil {
		secret, err := c.config.ClientSecret()
		if err != nil {
			return err
		}
		secrets = append(secrets, secret.Reveal())
		if c.secretInBody {
			form.Set("client_secret", secret.Reveal())
		} else {
			basic = secret.Reveal()
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if basic != "" {
		// RFC 6749 section 2.3.1: both are form-encoded first.
		req.SetBasicAuth(url.QueryEscape(c.config.ClientID), url.QueryEscape(basic))
	}
	secrets = append(secrets, strings.TrimPrefix(req.Header.Get("Authorization"), "Basic "))
	asked := time.Now()
	resp, body, err := c.do(req)
	if err != nil {
		return err
	}
	answered := time.Now()
	shown := shownURL(endpoint)

	var failure struct {
		Code        text `json:"error"`
		Description text `json:"error_description"`
	}
	isJSON := json.Unmarshal(body, &failure) == nil
	if mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mediaType == "application/x-www-form-urlencoded" {
		// GitHub, where the Accept header got lost on the way.
		if values, err := url.ParseQuery(string(body)); err == nil {
			failure.Code, failure.Description = text(values.Get("error")), text(values.Get("error_description"))
		}
	}
	if isJSON { // what is none is a proxy's, whose clock says nothing
		c.learnClock(resp, asked, answered)
	}
	if failure.Code != "" {
		return &ProviderError{
			URL: shown, Status: resp.StatusCode, RetryAfter: parseRetryAfter(resp),
			Code: redact(string(failure.Code), secrets, 60), Description: redact(string(failure.Description), secrets, 300),
		}
	}
	bad := &AnswerError{URL: shown, Status: resp.StatusCode, RetryAfter: parseRetryAfter(resp)}
	switch {
	case resp.StatusCode >= 300:
		bad.Reason = "holds no OAuth error"
		if location := resp.Header.Get("Location"); location != "" && resp.StatusCode < 400 {
			bad.Reason = "is a redirect, which is not followed"
		}
		return bad
	case answer == nil:
		return nil
	case !isJSON || !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")):
		bad.Reason = "is not JSON"
		return bad
	}
	if err := json.Unmarshal(body, answer); err != nil {
		// Without the cause: it could quote the answer.
		bad.Reason = "has a field of the wrong type"
		return bad
	}
	return nil
}

// leastClockDifference is what a difference of clocks must have to count: the
// Date header has whole seconds, and tokens last for minutes.
const leastClockDifference = time.Minute

// learnClock compares the clocks by the answer's Date (RFC 9110 section
// 6.6.1). POST answers are not kept by caches on the way, so that it is new.
func (c *Client) learnClock(resp *http.Response, asked, answered time.Time) {
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil || resp.Header.Get("Age") != "" {
		return
	}
	difference := date.Add(500 * time.Millisecond).Sub(asked.Add(answered.Sub(asked) / 2).Round(0)).Round(time.Second)
	if difference.Abs() < leastClockDifference+answered.Sub(asked) {
		difference = 0
	}
	c.clock = difference
}

// document is one that this client has seen already.
type document struct {
	body    []byte
	fetched time.Time
}

// document gets a public document and lets read read it: from the cache where
// it is fresh, unless anew is set, else from the provider. cached tells which.
// What read refuses is not kept.
func (c *Client) document(ctx context.Context, at string, anew bool, read func(body []byte) error) (cached bool, err error) {
	name := c.documentName(at)
	if !anew {
		kept := c.documents[name]
		if kept.body == nil && c.config.Documents != nil {
			kept.body, kept.fetched = c.config.Documents.LoadDocument(name)
		}
		age := time.Since(kept.fetched)
		if kept.body != nil && age >= 0 && age < documentLife && read(kept.body) == nil {
			c.documents[name] = kept
			return true, nil
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return false, err
	}
	resp, body, err := c.do(req)
	if err != nil {
		return false, err
	}
	bad := &AnswerError{URL: shownURL(at), Status: resp.StatusCode, RetryAfter: parseRetryAfter(resp)}
	switch {
	case resp.StatusCode != http.StatusOK:
		bad.Reason = "is not a document"
		return false, bad
	case !json.Valid(body):
		bad.Reason = "is not JSON"
		return false, bad
	}
	if err := read(body); err != nil {
		return false, err
	}
	c.documents[name] = document{body, time.Now()}
	if c.config.Documents != nil {
		if err := c.config.Documents.SaveDocument(name, body, time.Now()); err != nil {
			c.log("cannot keep %s: %v", shownURL(at), err) // it is fetched again next time
		}
	}
	return false, nil
}

// documentName tells documents apart by where they are and by whom one trusted.
func (c *Client) documentName(at string) string { return strings.TrimSpace(at + " " + c.config.Trust) }

func (c *Client) do(req *http.Request) (*http.Response, []byte, error) {
	req.Header.Set("Accept", "application/json")
	if c.config.UserAgent != "" {
		req.Header.Set("User-Agent", c.config.UserAgent)
	}
	shown := shownURL(req.URL.String())
	start := time.Now()
	resp, err := c.http.Do(req)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
		resp.Body.Close()
	}
	took := time.Since(start).Round(time.Millisecond)
	if err != nil {
		c.log("%s %s: no answer in %s", req.Method, shown, took)
		if req.Context().Err() != nil && !errors.Is(context.Cause(req.Context()), context.DeadlineExceeded) {
			return nil, nil, context.Cause(req.Context())
		}
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the URL is said already
		}
		return nil, nil, &TransportError{URL: shown, Err: err}
	}
	c.log("%s %s: HTTP status %d, %d bytes in %s", req.Method, shown, resp.StatusCode, len(body), took)
	if len(body) > maxAnswer {
		return nil, nil, &AnswerError{URL: shown, Status: resp.StatusCode, Reason: fmt.Sprintf("is larger than %d bytes", maxAnswer)}
	}
	return resp, body, nil
}

func (c *Client) log(format string, args ...any) {
	if c.config.Log != nil {
		c.config.Log(format, args...)
	}
}

// retry is retryWhere for what is likely to be better at once: an answer that is
// too large, or no JSON, or not there will be so again; a failing server's may
// not.
func retry(ctx context.Context, try func() error) error {
	return retryWhere(ctx, func(err error) bool {
		var answer *AnswerError
		return Temporary(err) && !(errors.As(err, &answer) && answer.Status < 429)
	}, try)
}

// retryWhere tries three times within some seconds, as long as the error is
// one that passes.
func retryWhere(ctx context.Context, passes func(error) bool, try func() error) error {
	const most = 3
	for n := 1; ; n++ {
		err := try()
		if !passes(err) || n == most || ctx.Err() != nil {
			return err
		}
		pause := time.Duration(n) * 500 * time.Millisecond
		if after := retryAfter(err); after > 5*time.Second {
			return err // too long for somebody who waits for a prompt
		} else if after > pause {
			pause = after
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return err // which says more
			}
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// shownURL leaves the query out, where a flag or a provider might have put
// something that should not be seen.
func shownURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return Clean(raw, 200)
	}
	u.RawQuery, u.Fragment, u.User = "", "", nil
	return Clean(u.String(), 200)
}

// redact makes a text of the provider safe to show: what was sent as a secret
// is taken out, cleaned first lest a character that does not show hide it.
func redact(s string, secrets []string, most int) string {
	s = Clean(s, maxAnswer)
	for _, secret := range secrets {
		for _, form := range []string{secret, url.QueryEscape(secret), Clean(secret, maxAnswer)} {
			if form != "" {
				s = strings.ReplaceAll(s, form, "[redacted]")
			}
		}
	}
	return Clean(s, most)
}

// parseRetryAfter reads both forms of the header (RFC 9110 section 10.2.3).
func parseRetryAfter(resp *http.Response) time.Duration {
	header := resp.Header.Get("Retry-After")
	if n, err := strconv.Atoi(header); err == nil {
		return time.Duration(min(max(n, 0), 3600)) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(time.Until(at), 0), time.Hour)
	}
	return 0
}

// number is a number of seconds that may come as a string, or as nonsense: that
// counts as not sent.
type number float64

func (n *number) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	if err != nil || math.IsNaN(f) {
		f = 0
	}
	*n = number(f)
	return nil
}

func (n number) seconds() time.Duration {
	// A year is longer than anything here may last, and fits.
	return time.Duration(float64(min(n, 365*24*3600)) * float64(time.Second))
}

// text is a string; a value of another type counts as empty.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	}
	return nil
}

// list is a JSON string, or an array of them, as in "aud" and, at some
// providers, "scope".
type list []string

func (l *list) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*l = slices.DeleteFunc([]string{one}, func(s string) bool { return s == "" })
		return nil
	}
	var many few[string]
	if json.Unmarshal(b, &many) == nil {
		*l = list(many)
	}
	return nil
}

// few is a JSON array of which the first elements are taken: an answer of
// 1 MiB can hold hundreds of thousands of them, which take many times that in
// memory.
type few[T any] []T

const fewest = 200

func (f *few[T]) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	start, err := d.Token()
	if err != nil || start == nil { // null
		return err
	}
	if start != json.Delim('[') {
		return errors.New("not an array")
	}
	*f = few[T]{}
	for d.More() && len(*f) < fewest {
		var element T
		if err := d.Decode(&element); err != nil {
			return err
		}
		*f = append(*f, element)
	}
	return nil
}
