;;; drive.el --- Emacs' lsp-mode, a client that is not ours, against the server  -*- lexical-binding: t; -*-
;; Run: emacs -Q --batch -l drive.el.  Environment:
;;   C2L_SERVER  JSON list, the command that starts the server
;;   C2L_WORK    a folder of this run's own
;;   C2L_PACKAGES  where lsp-mode and what it needs are unpacked
;;   C2L_TEXT    what the file holds; the cursor is at its end
;;   C2L_WANT    the suggestion that must come; empty: any
;;   C2L_FAULT   not empty: the suggestion is tampered with before it is accepted, so the run must fail
;;; Code:
(setq debug-on-error nil)
(dolist (folder (directory-files (getenv "C2L_PACKAGES") t "^[a-z]"))
  (add-to-list 'load-path folder))
(require 'json)
(setq lsp-auto-guess-root t
      lsp-warn-no-matched-clients nil
      lsp-restart 'ignore
      lsp-session-file (expand-file-name "session" (getenv "C2L_WORK"))
      lsp-keep-workspace-alive nil
      lsp-enable-suggest-server-download nil
      lsp-enable-dap-auto-configure nil
      lsp-modeline-code-actions-enable nil
      lsp-headerline-breadcrumb-enable nil
      lsp-response-timeout 60
      lsp-inline-completion-enable t)
(require 'lsp-mode)
(require 'lsp-inline-completion)
(require 'python)
(lsp-register-client
 (make-lsp-client :new-connection (lsp-stdio-connection (append (json-read-from-string (getenv "C2L_SERVER")) nil))
                  :activation-fn (lsp-activate-on "python")
                  :priority 10
                  :server-id 'c2l))
(setq lsp-enabled-clients '(c2l))

(defun drive-wait (what predicate seconds)
  "Wait for PREDICATE for SECONDS at most, else fail saying WHAT."
  (let ((end (+ (float-time) seconds)) got)
    (while (and (not (setq got (funcall predicate))) (< (float-time) end))
      (accept-process-output nil 0.05))
    (or got (error "Waited in vain for %s" what))))

(defun drive-equal (what got want)
  "Fail saying WHAT unless GOT is WANT."
  (unless (equal got want)
    (error "%s: got %S, want %S" what got want)))

(defun drive ()
  "The session."
  (let* ((work (getenv "C2L_WORK")) (path (expand-file-name "demo.py" work)) (text (getenv "C2L_TEXT")) given)
    (let ((coding-system-for-write 'utf-8))
      (with-temp-file path (insert text)))
    (find-file path)
    (python-mode)
    (lsp-workspace-folders-add work)
    (lsp)
    (drive-wait "the server" (lambda () (and (lsp-workspaces) (eq 'initialized (lsp--workspace-status (car (lsp-workspaces)))))) 90)
    (unless (lsp-feature? "textDocument/inlineCompletion")
      (error "The server does not announce inline completion"))
    (goto-char (point-max))
    (set-window-buffer (selected-window) (current-buffer))
    ;; Until the model is there the answer is empty, so the question is asked again.
    (drive-wait "a suggestion"
                (lambda ()
                  (let* ((asked (append (lsp--text-document-position-params) '(:context (:triggerKind 1))))
                         (items (lsp-get (lsp-request "textDocument/inlineCompletion" asked) :items)))
                    (when (> (length items) 0)
                      (setq given (lsp-get (aref items 0) :insertText)))))
                180)
    (unless (string= (getenv "C2L_WANT") "")
      (drive-equal "suggestion" given (getenv "C2L_WANT")))
    (lsp-inline-completion-display)
    (drive-wait "the overlay" (lambda () (bound-and-true-p lsp-inline-completion--overlay)) 60)
    (setq given (lsp-get (elt lsp-inline-completion--items lsp-inline-completion--current) :insertText))
    (when (not (string= (or (getenv "C2L_FAULT") "") ""))
      (advice-add 'lsp-inline-completion--insert-sugestion :filter-args
                  (lambda (arguments) (cons (concat "x" (car arguments)) (cdr arguments)))))
    (lsp-inline-completion-accept)
    (drive-equal "buffer" (buffer-substring-no-properties (point-min) (point-max)) (concat text given))
    (let ((require-final-newline nil)) (save-buffer))
    (drive-equal "file" (with-temp-buffer (insert-file-contents path) (buffer-string)) (concat text given))))

(condition-case problem
    (progn (drive) (message "OK") (kill-emacs 0))
  (error (message "FAILED %s" (error-message-string problem)) (kill-emacs 1)))
;;; drive.el ends here
