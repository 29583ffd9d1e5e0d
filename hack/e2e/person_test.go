package e2e

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// decide opens a link and answers page after page, as a person with a browser
// would, until there is nothing more to answer. It gives the time at which the
// last answer was in.
func (p *provider) decide(link string, allow bool) (time.Time, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return time.Time{}, err
	}
	client := p.client()
	client.Jar = jar
	response, err := client.Get(link)
	aborted := false
	for range 10 {
		if err != nil {
			return time.Time{}, err
		}
		at := time.Now()
		body, err2 := io.ReadAll(response.Body)
		response.Body.Close()
		if err2 != nil {
			return time.Time{}, err2
		}
		page, here := string(body), response.Request.URL
		next := answer(page, here, p.user, allow)
		switch {
		case aborted: // node's page for that asks for another code
			return at, nil
		case next == nil && response.StatusCode == http.StatusOK:
			return at, nil
		case next == nil:
			return time.Time{}, fmt.Errorf("%s: %s\n%s", here, response.Status, page)
		case next.form == nil:
			response, err = client.Get(next.url)
		default:
			aborted = next.form.Has("abort")
			response, err = client.PostForm(next.url, next.form)
		}
	}
	return time.Time{}, fmt.Errorf("%s: pages without end", link)
}

type step struct {
	url  string
	form url.Values // nil: a link
}

var (
	formTag   = regexp.MustCompile(`(?is)<form\b([^>]*)>(.*?)</form>`)
	inputTag  = regexp.MustCompile(`(?is)<input\b([^>]*)>`)
	attribute = regexp.MustCompile(`([a-z-]+)="([^"]*)"`)
	goesTo    = regexp.MustCompile(`location\.href='([^']*)'`)
)

// answer gives the next step of a page, or nil if it asks for nothing.
func answer(page string, here *url.URL, user string, allow bool) *step {
	form := formTag.FindStringSubmatch(page)
	if form == nil {
		// zitadel's last page has two buttons that are links.
		for _, m := range goesTo.FindAllStringSubmatch(page, -1) {
			if strings.Contains(m[1], "allowed") == allow {
				return &step{url: resolve(here, m[1])}
			}
		}
		return nil
	}
	values := url.Values{}
	for _, input := range inputTag.FindAllStringSubmatch(form[2], -1) {
		a := attributes(input[1])
		if a["name"] != "" {
			values.Set(a["name"], a["value"])
		}
	}
	for _, name := range []string{"login", "username"} {
		if values.Has(name) {
			values.Set(name, user)
		}
	}
	if values.Has("password") {
		values.Set("password", "any")
	}
	// node's page with the code has a button of this name beside its form.
	if !allow && strings.Contains(page, `name="abort"`) {
		values.Set("abort", "yes")
	}
	return &step{url: resolve(here, attributes(form[1])["action"]), form: values}
}

func attributes(tag string) map[string]string {
	found := map[string]string{}
	for _, m := range attribute.FindAllStringSubmatch(tag, -1) {
		found[m[1]] = html.UnescapeString(m[2])
	}
	return found
}

func resolve(here *url.URL, reference string) string {
	u, err := here.Parse(reference)
	if err != nil {
		return reference
	}
	return u.String()
}
