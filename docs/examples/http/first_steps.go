// First steps over HTTP, with nothing but Go's standard library:
//
//	go run docs/examples/http/first_steps.go [http://127.0.0.1:8080]
//
// KRITA_ADMIN_TOKEN in the environment is used, if the cluster asks for a token.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const tries = 5

// Failure is the body of every error.
type Failure struct {
	Message string `json:"message"`
	Code    string `json:"code"`
	Outcome string `json:"outcome"`
	Hint    string `json:"hint"`
}

func (f *Failure) Error() string {
	return fmt.Sprintf("%s (%s)", f.Message, f.Outcome)
}

// Store is a cluster, as one of its nodes.
type Store struct {
	base  string
	token string
}

// ask makes one request. Errors are *Failure. 503 is always "not applied", so it is
// tried again.
func (s *Store) ask(method, key, value string, header http.Header) (*http.Response, string, error) {
	for try := 1; ; try++ {
		address := s.base + "/v1/kv/" + url.PathEscape(key)
		request, err := http.NewRequest(method, address, strings.NewReader(value))
		if err != nil {
			return nil, "", err
		}
		for name, values := range header {
			request.Header[name] = values
		}
		if s.token != "" {
			request.Header.Set("Authorization", "Bearer "+s.token)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return nil, "", err
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			return nil, "", err
		}
		if answer.StatusCode < 300 {
			return answer, string(body), nil
		}
		if answer.StatusCode == http.StatusServiceUnavailable && try < tries {
			time.Sleep(retryAfter(answer))
			continue
		}
		failure := &Failure{}
		if err := json.Unmarshal(body, failure); err != nil {
			return nil, "", fmt.Errorf("status %d: %s", answer.StatusCode, body)
		}
		return nil, "", failure
	}
}

func retryAfter(answer *http.Response) time.Duration {
	seconds, err := strconv.Atoi(answer.Header.Get("Retry-After"))
	if err != nil {
		seconds = 1
	}
	return time.Duration(seconds) * time.Second
}

// is tells whether the error is the one with this code.
func is(err error, code string) bool {
	var failure *Failure
	return errors.As(err, &failure) && failure.Code == code
}

func firstSteps(store *Store) error {
	const key = "example:greeting"
	put, _, err := store.ask("PUT", key, "hello", http.Header{"Content-Type": {"text/plain"}})
	if err != nil {
		return err
	}
	_, value, err := store.ask("GET", key, "", nil)
	if err != nil {
		return err
	}
	fmt.Printf("%s is %s\n", key, value)

	// Only what has been read is replaced: whoever was faster wins.
	condition := http.Header{"If-Match": {put.Header.Get("ETag")}}
	if _, _, err := store.ask("PUT", key, "hello again", condition); err != nil {
		return err
	}
	_, _, err = store.ask("PUT", key, "too late", condition)
	if !is(err, "condition_failed") {
		return fmt.Errorf("it was not refused: %v", err)
	}
	fmt.Printf("refused, not_applied: %v\n", err)

	if _, _, err := store.ask("DELETE", key, "", nil); err != nil {
		return err
	}
	if _, _, err := store.ask("GET", key, "", nil); !is(err, "not_found") {
		return fmt.Errorf("it is still there: %v", err)
	}
	fmt.Printf("%s is None\n", key)
	return nil
}

// add adds to a number that others add to as well.
func add(store *Store, key string, amount int) error {
	for {
		condition := http.Header{}
		answer, value, err := store.ask("GET", key, "", nil)
		switch {
		case err == nil:
			condition.Set("If-Match", answer.Header.Get("ETag"))
		case is(err, "not_found"):
			value = "0"
			condition.Set("If-None-Match", "*")
		default:
			return err
		}
		number, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		_, _, err = store.ask("PUT", key, strconv.Itoa(number+amount), condition)
		if !is(err, "condition_failed") {
			return err // or nil; else somebody was faster: look again
		}
	}
}

func countVisits(store *Store) error {
	const key = "example:visits"
	if _, _, err := store.ask("DELETE", key, "", nil); err != nil {
		return err
	}
	var group sync.WaitGroup
	failures := make(chan error, 10)
	for visitor := 0; visitor < 10; visitor++ {
		group.Add(1)
		go func() {
			defer group.Done()
			failures <- add(store, key, 1)
		}()
	}
	group.Wait()
	close(failures)
	for err := range failures {
		if err != nil {
			return err
		}
	}
	_, value, err := store.ask("GET", key, "", nil)
	if err == nil {
		fmt.Printf("%s visits\n", value)
	}
	return err
}

func main() {
	store := &Store{base: "http://127.0.0.1:8080", token: os.Getenv("KRITA_ADMIN_TOKEN")}
	if len(os.Args) > 1 {
		store.base = os.Args[1]
	}
	for _, step := range []func(*Store) error{firstSteps, countVisits} {
		if err := step(store); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
